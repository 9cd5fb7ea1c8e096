"""From a name in a message to the field that holds it."""

from tests.support.operator.builders import run

from hatchery_operator.domain.spec_paths import SpecPaths


def test_a_name_is_traced_to_the_field_that_holds_it_or_to_the_settings() -> None:
    subject = run(
        sources=[{"name": "s", "files": {"urls": ["claim://texts/a/*.txt"]}}],
        hub={"repo": "a/b", "tokenSecret": {"name": "t"}},
    )
    names = SpecPaths.of(subject.namespace, subject.spec, "shared")
    assert names.origin("texts") == ", named in `spec.sources[0].files.urls[0]`,"
    assert names.origin("t") == ", named in `spec.hub.tokenSecret.name`,"
    assert names.origin("shared") == ", the operator's default if `spec.storage` is not set,"
    assert names.origin("another") == ""
