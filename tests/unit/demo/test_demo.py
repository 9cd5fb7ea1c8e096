import yaml
from tests.demo.__main__ import SAMPLE, pipeline_with_hub
from tests.support.kube.installation import HUB_URL, TOKEN_SECRET

from hatchery_api.kinds import BY_KIND


def test_the_demo_applies_the_sample_and_adds_nothing_but_the_hub(tmp_path):
    written = list(yaml.safe_load_all(pipeline_with_hub(tmp_path, "demo-1").read_text()))
    pushes = [resource["spec"].pop("hub") for resource in written]
    assert written == list(yaml.safe_load_all(SAMPLE.read_text()))
    assert [resource["kind"] for resource in written] == ["CorpusBuild", "TokenizerBuild", "PretrainRun", "EvalRun"]
    assert len({push["repo"] for push in pushes}) == len(pushes)
    for push in pushes:
        assert push["repo"].startswith("demo-1/")
        assert (push["endpoint"], push["tokenSecret"]) == (HUB_URL, {"name": TOKEN_SECRET})


def test_the_api_takes_what_the_demo_applies(tmp_path):
    for resource in yaml.safe_load_all(pipeline_with_hub(tmp_path, "demo-1").read_text()):
        spec = BY_KIND[resource["kind"]].spec.model_validate(resource["spec"])
        assert spec.hub is not None
