"""The contract between operator and pods: size of the report, and key of the artifact."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatchery_api.conditions import Reason
from hatchery_api.contract import REPORT_LIMIT_BYTES, ExitCode, Report, artifact_key, stage_spec
from hatchery_api.placement import OPERATIONAL_FIELDS
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_api.resources.tokenizer import TokenizerBuildSpec
from hatchery_api.status import Artifact

SPEC = {"corpusRef": {"name": "code"}, "build": {}}
ARTIFACT = Artifact(
    uri="claim://hatchery/default/corpusbuilds/code/0123456789abcdef", digest="0" * 64, bytes=1, key="0" * 16
)


def spec(**changes) -> TokenizerBuildSpec:
    return TokenizerBuildSpec.model_validate(SPEC | changes)


@given(
    message=st.text(max_size=6000),
    result=st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=3000), max_size=6),
)
def test_a_termination_message_fits_and_is_still_a_report(message, result) -> None:
    report = Report(reason=Reason.SOURCE_NOT_FOUND, message=message, artifact=ARTIFACT, result=result)
    text = report.termination_message()
    assert len(text.encode()) <= REPORT_LIMIT_BYTES
    read = Report.model_validate_json(text)
    assert (read.reason, read.artifact) == (report.reason, ARTIFACT)
    assert read.result.items() <= result.items()


def test_a_report_that_fits_is_complete() -> None:
    report = Report(
        reason=Reason.COMPLETED, message="done", artifact=ARTIFACT, result={"funnel": [1, 2]}, seconds=1.5, cached=True
    )
    assert Report.model_validate_json(report.termination_message()) == report


def test_the_longest_part_of_the_result_goes_first_and_the_message_last() -> None:
    report = Report(reason=Reason.COMPLETED, message="x" * 2000, result={"long": "y" * 3000, "short": "z"})
    read = Report.model_validate_json(report.termination_message())
    assert read.result == {"short": "z"}
    assert read.message == report.message


def test_a_newer_pods_report_is_read_by_an_older_operator() -> None:
    assert Report.model_validate({"reason": "Completed", "inventedLater": 1}).reason == Reason.COMPLETED


def key(stage, code_version, whole, inputs) -> str:
    """Key of an artifact that the whole spec decides."""
    return artifact_key(stage, code_version, stage_spec(whole), inputs)


@pytest.mark.parametrize("field", sorted(OPERATIONAL_FIELDS - {"parallelism", "encode", "tracking"}))
def test_operational_fields_are_not_part_of_the_key(field) -> None:
    values = {
        "suspend": True,
        "ttlSecondsAfterFinished": 1,
        "retry": {"maxAttempts": 9},
        "image": "other",
        "placement": {"priorityClassName": "high"},
        "storage": {"claimName": "other"},
        "hub": {"repo": "a/b"},
    }
    assert key("train", "1", spec(**{field: values[field]}), {}) == key("train", "1", spec(), {})


def test_the_number_of_workers_and_their_logging_are_not_part_of_the_key() -> None:
    wanted = {"corpora": [{"corpusRef": {"name": "c"}}], "tokenizerRef": {"name": "t"}, "schedule": {"steps": 9}}
    sizes = (
        {},
        {"parallelism": {"nodes": 2}},
        {"parallelism": {"processesPerNode": 4}},
        {"encode": {"parallelism": 8}},
        {"tracking": {"tensorboard": False}},
    )
    for stage in ("encode", "train"):
        keys = {key(stage, "1", PretrainRunSpec.model_validate({**wanted, **size}), {}) for size in sizes}
        assert len(keys) == 1


def test_everything_else_changes_the_key() -> None:
    keys = [
        key("train", "1", spec(), {"corpus": "a"}),
        key("encode", "1", spec(), {"corpus": "a"}),
        key("train", "2", spec(), {"corpus": "a"}),
        key("train", "1", spec(vocabSize=512), {"corpus": "a"}),
        key("train", "1", spec(), {"corpus": "b"}),
        key("train", "1", spec(), {"tokenizer": "a"}),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_is_the_hash_of_canonical_json() -> None:
    """Recomputed from the definition: a changed key would orphan every stored artifact."""
    text = json.dumps(["train", "1", stage_spec(spec()), {"b": "2", "a": "1"}], sort_keys=True, separators=(",", ":"))
    assert key("train", "1", spec(), {"a": "1", "b": "2"}) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_default_that_is_spelled_out_is_the_same_work() -> None:
    assert key("train", "1", spec(vocabSize=32768), {}) == key("train", "1", spec(), {})


def test_exit_codes_are_what_the_pods_and_the_failure_policy_agreed_on() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "SPEC_ERROR": 64,
        "DATA_ERROR": 65,
        "RETRY": 75,
        "INTERRUPTED": 128 + 15,
    }
