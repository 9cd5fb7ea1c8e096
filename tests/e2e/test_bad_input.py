"""What users get wrong ends in a condition that says what, where and what to do. All cases run at once."""

import pytest
from tests.support.jobs.corpora import GOOD, corpus, resource
from tests.support.kube.kubectl import condition, failed_because, says

CASES = {
    "missing-source": (
        corpus("/no/such/folder/*.py"),
        failed_because("SourceNotFound"),
        ["/no/such/folder/*.py", "spec.sources"],
    ),
    "empty-corpus": (
        corpus(GOOD, filters={"rules": [{"size": {"minBytes": 900_000}}]}),
        failed_because("EmptyCorpus"),
        ["size"],
    ),
    "bad-bytes": (
        corpus("/bin/true", files={"format": "text"}),
        failed_because("UnreadableInput"),
        ["/bin/true", "quarantine"],
    ),
    "bad-token": (
        corpus(GOOD, hub={"repo": "a/b", "tokenSecret": {"name": "wrong-token"}}),
        failed_because("HubUnauthorized"),
        ["tokenSecret"],
    ),
    "waits": (
        (
            "TokenizerBuild",
            {"corpusRef": {"name": "not-there-yet"}, "build": {}, "vocabSize": 300},
        ),
        says("not-there-yet"),
        ["not-there-yet"],
    ),
    "vocabulary": (
        (
            "TokenizerBuild",
            {"corpusRef": {"name": "good"}, "build": {}, "vocabSize": 500_000, "retry": {"maxAttempts": 1}},
        ),
        failed_because("VocabularyTooLarge"),
        ["500000", "vocabSize"],
    ),
}


@pytest.fixture(scope="module")
def applied(kube, namespace):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong-token"}, "stringData": {"token": "no"}}
    cases = {"good": corpus(), **{name: case[0] for name, case in CASES.items()}}
    kube.apply(secret, *(resource(name, case) for name, case in cases.items()), namespace=namespace)


@pytest.mark.parametrize("name", CASES)
def test_the_condition_says_what_where_and_what_to_do(kube, namespace, applied, name):
    (kind, _), until, words = CASES[name]
    found = kube.wait(kind, namespace, name, until, 300)
    text = " ".join(c["reason"] + " " + c.get("message", "") for c in found["status"]["conditions"])
    for word in words:
        assert word in text, text


def test_nothing_half_written_is_taken_for_an_artifact(kube, namespace, applied):
    for name in ("empty-corpus", "bad-bytes", "missing-source"):
        found = kube.wait(
            "CorpusBuild", namespace, name, lambda one: condition(one, "Succeeded").get("status") == "False", 300
        )
        assert "artifact" not in found["status"]
