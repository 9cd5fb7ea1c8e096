"""The CRDs on a real API server: what is accepted, what is refused and with which words, what is stored."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.jobs.guide import examples

from hatchery_api.kinds import BY_KIND, KINDS
from hatchery_api.placement import MUTABLE_FIELDS
from hatchery_api.resources.pretrain import PretrainRunSpec

ROOT = Path(__file__).resolve().parents[2]
GROUP_PATH = "/apis/hatchery.dev/v1alpha1/namespaces/default"
CRDS_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE_PATCH = "application/merge-patch+json"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
CREATED, UNPROCESSABLE, BAD_REQUEST, OK = 201, 422, 400, 200

pytestmark = pytest.mark.apiserver

SPECS: dict[str, dict[str, Any]] = {
    "CorpusBuild": {"sources": [{"name": "code", "files": {"urls": ["/data/**/*.py"]}}]},
    "TokenizerBuild": {"corpusRef": {"name": "code"}, "build": {}},
    "PretrainRun": {
        "corpora": [{"corpusRef": {"name": "code"}}],
        "tokenizerRef": {"name": "code"},
        "schedule": {"steps": 100},
    },
    "EvalRun": {
        "model": {"pretrainRef": {"name": "code"}},
        "tasks": [{"name": "completion", "completion": {}}],
    },
}
"""The least that is accepted."""

DELETE = object()
"""Stands for a field that is taken away."""

INVALID = [
    # kind, change of the least spec, field in the answer, what the answer says to do
    ("CorpusBuild", {"sources": DELETE}, "spec.sources", "Required value"),
    ("CorpusBuild", {"sources": []}, "spec.sources", "at least 1 item"),
    ("CorpusBuild", {"sources.0.name": "Not A Name"}, "spec.sources[0].name", "lower-case"),
    ("CorpusBuild", {"sources.0.hub": {"dataset": "a/b"}}, "spec.sources[0]", "exactly one of files, hub"),
    ("CorpusBuild", {"sources.0.files": DELETE}, "spec.sources[0]", "exactly one of files, hub"),
    ("CorpusBuild", {"sources.0.files.urls": []}, "spec.sources[0].files.urls", "at least 1 item"),
    ("CorpusBuild", {"sources.0.files.format": "pickle"}, "spec.sources[0].files.format", '"parquet"'),
    ("CorpusBuild", {"sources.0.files.delimiter": "::"}, "spec.sources[0].files.delimiter", "may not be more than 1"),
    ("CorpusBuild", {"sources.1": SPECS["CorpusBuild"]["sources"][0]}, "spec.sources[1]", "Duplicate value"),
    ("CorpusBuild", {"filters": {"preset": "fineweb"}}, "spec.filters.preset", '"codeparrot"'),
    ("CorpusBuild", {"filters": {"rules": [{}]}}, "spec.filters.rules[0]", "exactly one of size, lineLength"),
    (
        "CorpusBuild",
        {"filters": {"rules": [{"size": {}, "assignments": {}}]}},
        "spec.filters.rules[0]",
        "exactly one of size, lineLength",
    ),
    (
        "CorpusBuild",
        {"filters": {"rules": [{"size": {"minBytes": 10, "maxBytes": 5}}]}},
        "spec.filters.rules[0].size",
        "minBytes must not exceed maxBytes",
    ),
    (
        "CorpusBuild",
        {"filters": {"rules": [{"keywords": {"dropProbability": 1.5}}]}},
        "spec.filters.rules[0].keywords.dropProbability",
        "less than or equal to 1",
    ),
    (
        "CorpusBuild",
        {"dedup": {"near": {"bands": 256}}},
        "spec.dedup.near",
        "must not exceed 1024; lower one of them",
    ),
    ("CorpusBuild", {"dedup": {"near": {"threshold": 0}}}, "spec.dedup.near.threshold", "greater than 0"),
    ("CorpusBuild", {"split": {"validation": 0.9}}, "spec.split.validation", "less than or equal to 0.5"),
    ("CorpusBuild", {"output": {"shardBytes": "256MB"}}, "spec.output.shardBytes", "for example 500m, 2 or 4Gi"),
    ("CorpusBuild", {"storage": {"root": "s3://b", "claimName": "c"}}, "spec.storage", "either root or claimName"),
    ("CorpusBuild", {"retry": {"maxAttempts": 0}}, "spec.retry.maxAttempts", "greater than or equal to 1"),
    ("CorpusBuild", {"retry": {"backoff": "soon"}}, "spec.retry.backoff", "for example 90s or 1h30m"),
    ("CorpusBuild", {"hub": {"repo": "no-organisation"}}, "spec.hub.repo", "organisation/name"),
    ("CorpusBuild", {"hub": {"repo": "a/b", "tokenSecret": {}}}, "spec.hub.tokenSecret.name", "Required value"),
    (
        "CorpusBuild",
        {"placement": {"resources": {"limits": {"memory": "lots"}}}},
        "spec.placement.resources.limits[memory]",
        "for example 500m, 2 or 4Gi",
    ),
    (
        "CorpusBuild",
        {"placement": {"resources": {"limits": {"nvidia.com/gpu": -1}}}},
        "spec.placement.resources.limits[nvidia.com/gpu]",
        "for example 500m, 2 or 4Gi",
    ),
    ("TokenizerBuild", {"vocabSize": 100}, "spec.vocabSize", "greater than or equal to 260"),
    ("TokenizerBuild", {"vocabSize": "many"}, "spec.vocabSize", "must be of type integer"),
    ("TokenizerBuild", {"build": DELETE}, "spec", "exactly one of from, build"),
    ("TokenizerBuild", {"from": {"base": "gpt2"}}, "spec", "exactly one of from, build"),
    ("TokenizerBuild", {"corpusRef.split": "test"}, "spec.corpusRef.split", '"validation"'),
    (
        "TokenizerBuild",
        {"build": {"preTokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}},
        "spec.build.preTokenizers[0]",
        "type Split needs a pattern",
    ),
    (
        "TokenizerBuild",
        {"build": {"preTokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}},
        "spec.build.preTokenizers",
        "the last one must be of type ByteLevel",
    ),
    ("TokenizerBuild", {"build": {"model": "WordPiece"}}, "spec.build.model", '"BPE"'),
    ("PretrainRun", {"schedule": DELETE}, "spec.schedule", "Required value"),
    ("PretrainRun", {"schedule.steps": 0}, "spec.schedule.steps", "greater than or equal to 1"),
    ("PretrainRun", {"schedule.warmupSteps": 100}, "spec.schedule", "warmupSteps must be below steps"),
    ("PretrainRun", {"schedule.minLr": 0.1}, "spec.schedule", "minLr must not exceed peakLr"),
    ("PretrainRun", {"schedule.peakLr": 0}, "spec.schedule.peakLr", "greater than 0"),
    ("PretrainRun", {"batch": {"sequences": 100, "perDevice": 12}}, "spec.batch", "perDevice must divide sequences"),
    ("PretrainRun", {"batch": {"perDevice": 7}}, "spec.batch", "perDevice must divide sequences"),
    ("PretrainRun", {"parallelism": {"nodes": 17}}, "spec", "must not exceed batch.sequences"),
    ("PretrainRun", {"parallelism": {"nodes": 9, "processesPerNode": 2}}, "spec", "a share of the global batch"),
    ("PretrainRun", {"parallelism": {"processesPerNode": "all"}}, "spec.parallelism.processesPerNode", "must be auto"),
    ("PretrainRun", {"parallelism": {"processesPerNode": 65}}, "spec.parallelism.processesPerNode", "from 1 to 64"),
    (
        "PretrainRun",
        {"model": {"overrides": {"heads": 5, "hiddenSize": 64}}},
        "spec.model",
        "overrides.heads must divide overrides.hiddenSize",
    ),
    (
        "PretrainRun",
        {"model": {"overrides": {"maxPositions": 512}}},
        "spec",
        "data.sequenceLength must not exceed model.overrides.maxPositions",
    ),
    ("PretrainRun", {"model": {"size": "huge"}}, "spec.model.size", '"xl"'),
    ("PretrainRun", {"precision": "int8"}, "spec.precision", '"bf16"'),
    ("PretrainRun", {"checkpoint": {"gracePeriod": "2 minutes"}}, "spec.checkpoint.gracePeriod", "for example 90s"),
    ("PretrainRun", {"corpora": []}, "spec.corpora", "at least 1 item"),
    ("PretrainRun", {"corpora.0": {}}, "spec.corpora[0]", "exactly one of corpusRef, hub, files"),
    ("PretrainRun", {"corpora.0.hub": {"dataset": "a/b"}}, "spec.corpora[0]", "exactly one of corpusRef, hub, files"),
    ("PretrainRun", {"corpora.0.weight": 0}, "spec.corpora[0].weight", "greater than 0"),
    (
        "PretrainRun",
        {"corpora": [{"corpusRef": {"name": "a"}, "weight": 2}, {"corpusRef": {"name": "b"}}]},
        "spec",
        "set weight for every corpus or for none",
    ),
    ("PretrainRun", {"model": {"architecture": "bert"}}, "spec", "gpt2 or llama for causal"),
    (
        "PretrainRun",
        {"objective": {"type": "masked"}, "model": {"architecture": "t5"}},
        "spec",
        "bert or roberta for masked",
    ),
    ("PretrainRun", {"objective": {"type": "seq2seq"}}, "spec", "t5 for seq2seq"),
    ("PretrainRun", {"objective": {"masked": {}}}, "spec.objective", "masked requires type masked"),
    ("PretrainRun", {"objective": {"seq2seq": {}}}, "spec.objective", "seq2seq requires type seq2seq"),
    (
        "PretrainRun",
        {"objective": {"type": "masked", "masked": {"probability": 1}}, "model": {"architecture": "bert"}},
        "spec.objective.masked.probability",
        "less than 1",
    ),
    (
        "PretrainRun",
        {"objective": {"type": "seq2seq", "seq2seq": {"task": "translate"}}, "model": {"architecture": "t5"}},
        "spec.objective.seq2seq.task",
        '"spanCorruption"',
    ),
    (
        "PretrainRun",
        {
            "objective": {"type": "masked"},
            "model": {"architecture": "roberta"},
            "data": {"packing": "bestFit"},
        },
        "spec",
        "data.packing bestFit requires objective causal",
    ),
    (
        "PretrainRun",
        {"objective": {"type": "masked"}, "model": {"architecture": "bert"}, "data": {"documentMask": True}},
        "spec",
        "data.documentMask requires objective causal",
    ),
    (
        "PretrainRun",
        {"objective": {"type": "masked", "masked": {"nextSentence": True}}, "model": {"architecture": "roberta"}},
        "spec",
        "objective.masked.nextSentence requires model.architecture bert",
    ),
    ("PretrainRun", {"attention": "flash", "precision": "fp32"}, "spec", "attention flash requires precision bf16 or"),
    (
        "PretrainRun",
        {"attention": "flash", "precision": "bf16", "data": {"documentMask": True}},
        "spec",
        "attention flash requires precision bf16 or fp16, and neither model.architecture t5 nor data.documentMask",
    ),
    (
        "PretrainRun",
        {
            "attention": "flash",
            "precision": "bf16",
            "objective": {"type": "seq2seq"},
            "model": {"architecture": "t5"},
        },
        "spec",
        "attention flash requires precision bf16 or fp16, and neither model.architecture t5 nor data.documentMask",
    ),
    (
        "PretrainRun",
        {"precision": "fp16", "parallelism": {"strategy": "fsdp"}},
        "spec",
        "precision fp16 requires parallelism.strategy ddp",
    ),
    (
        "PretrainRun",
        {"data": {"loading": "streaming", "packing": "bestFit"}},
        "spec",
        "data.loading streaming requires objective causal with packing concat",
    ),
    (
        "PretrainRun",
        {"objective": {"type": "seq2seq"}, "model": {"architecture": "t5"}, "data": {"loading": "streaming"}},
        "spec",
        "data.loading streaming requires objective causal with packing concat",
    ),
    ("PretrainRun", {"data": {"validationShare": 1}}, "spec.data.validationShare", "less than 1"),
    ("PretrainRun", {"data": {"shuffle": {"bufferRows": 0}}}, "spec.data.shuffle.bufferRows", "or equal to 1"),
    ("PretrainRun", {"schedule.decaySteps": 10}, "spec.schedule", "decaySteps requires type wsd"),
    (
        "PretrainRun",
        {"schedule": {"steps": 100, "type": "wsd", "warmupSteps": 60, "decaySteps": 50}},
        "spec.schedule",
        "warmupSteps + decaySteps must not exceed steps",
    ),
    ("PretrainRun", {"guard": {"lossSpike": {"factor": 1}}}, "spec.guard.lossSpike.factor", "greater than 1"),
    ("PretrainRun", {"guard": {"lossSpike": {"window": 7}}}, "spec.guard.lossSpike.window", "or equal to 8"),
    ("PretrainRun", {"guard": {"nonFinite": "ignore"}}, "spec.guard.nonFinite", '"rollback"'),
    ("PretrainRun", {"guard": {"stallTimeout": "never"}}, "spec.guard.stallTimeout", "for example 90s"),
    (
        "PretrainRun",
        {"model": {"from": {"pretrainRef": {"name": "a"}, "hub": {"repo": "a/b"}}}},
        "spec.model.from",
        "exactly one of pretrainRef, hub",
    ),
    ("PretrainRun", {"model": {"from": {}}}, "spec.model.from", "exactly one of pretrainRef, hub"),
    ("PretrainRun", {"checkpoint": {"resumeFrom": {}}}, "spec.checkpoint.resumeFrom.repo", "Required value"),
    ("PretrainRun", {"checkpoint": {"keepLast": 0}}, "spec.checkpoint.keepLast", "or equal to 1"),
    ("PretrainRun", {"parallelism": {"strategy": "zero"}}, "spec.parallelism.strategy", '"fsdp"'),
    ("PretrainRun", {"compile": "maybe"}, "spec.compile", '"always"'),
    ("PretrainRun", {"attention": "linear"}, "spec.attention", '"eager"'),
    ("PretrainRun", {"tracking": {"wandb": {}}}, "spec.tracking.wandb.project", "Required value"),
    ("PretrainRun", {"evaluate": {"samples": {"prompts": [""]}}}, "spec.evaluate.samples.prompts[0]", "at least 1"),
    ("EvalRun", {"model": {}}, "spec.model", "exactly one of pretrainRef, hub"),
    ("EvalRun", {"model.hub": {"repo": "a/b"}}, "spec.model", "exactly one of pretrainRef, hub"),
    ("EvalRun", {"tasks": []}, "spec.tasks", "at least 1 item"),
    ("EvalRun", {"tasks.0.completion": DELETE}, "spec.tasks[0]", "exactly one of perplexity, completion"),
    ("EvalRun", {"tasks.0.completion": {"topP": 0}}, "spec.tasks[0].completion.topP", "greater than 0"),
    ("EvalRun", {"tasks.0.perplexity": {}}, "spec.tasks[0].perplexity.corpusRef", "Required value"),
    ("EvalRun", {"tasks.1": SPECS["EvalRun"]["tasks"][0]}, "spec.tasks[1]", "Duplicate value"),
]


def changed(spec: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy with values set at dotted paths; a number is a place in a list."""
    spec = copy.deepcopy(spec)
    for path, value in changes.items():
        node: Any = spec
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            node = node[part]
        if value is DELETE:
            del node[last]
        elif isinstance(node, list) and last == len(node):
            node.append(value)
        else:
            node[last] = value
    return spec


def resource(kind: str, spec: dict[str, Any], name: str = "run") -> dict[str, Any]:
    return {"apiVersion": "hatchery.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def path_of(kind: str, name: str = "") -> str:
    return f"{GROUP_PATH}/{BY_KIND[kind].plural}" + (f"/{name}" if name else "")


def create(api, kind, spec, name="run", *, dry_run=True):
    query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
    return api.request("POST", path_of(kind), resource(kind, spec, name), **query)


@pytest.fixture(params=[kind.kind for kind in KINDS])
def stored(request, api) -> Iterator[tuple[str, dict[str, Any]]]:
    """One stored resource of each kind with the least spec."""
    kind = request.param
    status, body = create(api, kind, SPECS[kind], "stored", dry_run=False)
    assert status == CREATED, body
    yield kind, body
    api.request("DELETE", path_of(kind, "stored"))


def start(api, kind: str) -> None:
    """What the operator writes when work begins."""
    change = {"status": {"startTime": "2026-01-01T00:00:00Z"}}
    status, body = api.request("PATCH", path_of(kind, "stored") + "/status", change, content_type=MERGE_PATCH)
    assert status == OK, body


def patch_spec(api, kind: str, change: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return api.request("PATCH", path_of(kind, "stored"), {"spec": change}, content_type=MERGE_PATCH)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_definition_is_established_and_structural(api, kind) -> None:
    _, crd = api.request("GET", f"{CRDS_PATH}/{kind.plural}.hatchery.dev")
    conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert "NonStructuralSchema" not in conditions
    assert crd["status"]["acceptedNames"]["shortNames"] == [kind.short]
    assert crd["status"]["acceptedNames"]["categories"] == ["hatchery"]


@pytest.mark.parametrize("kind", SPECS)
def test_the_least_spec_is_accepted(api, kind) -> None:
    status, body = create(api, kind, SPECS[kind])
    assert status == CREATED, body


@pytest.mark.parametrize("path", sorted((ROOT / "manifests/samples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_sample_is_accepted(control_plane, path) -> None:
    command = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(path)]
    accepted = control_plane.kubectl(*command).splitlines()
    assert len(accepted) == path.read_text().count("\nkind: ")


@pytest.mark.parametrize(
    ("kind", "changes", "field", "remedy"),
    INVALID,
    ids=[f"{kind}-{next(iter(c))}-{n}" for n, (kind, c, *_) in enumerate(INVALID)],
)
def test_a_wrong_spec_is_refused_with_the_field_and_the_remedy(api, kind, changes, field, remedy) -> None:
    status, body = create(api, kind, changed(SPECS[kind], changes))
    assert status == UNPROCESSABLE, body
    answers = {cause["field"]: cause["message"] for cause in body["details"]["causes"]}
    assert field in answers, answers
    assert remedy in answers[field]


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("CorpusBuild", {"dedupe": {}}, "spec.dedupe"),
        ("CorpusBuild", {"sources.0.files.url": "x"}, "spec.sources[0].files.url"),
        ("TokenizerBuild", {"vocab_size": 4096}, "spec.vocab_size"),
        ("PretrainRun", {"schedule.warmup": 10}, "spec.schedule.warmup"),
        ("EvalRun", {"tasks.0.completion.topp": 0.5}, "spec.tasks[0].completion.topp"),
    ],
)
def test_an_unknown_field_is_refused_by_name(api, kind, changes, field) -> None:
    status, body = create(api, kind, changed(SPECS[kind], changes))
    assert status == BAD_REQUEST
    assert f'unknown field "{field}"' in body["message"]


@pytest.mark.parametrize(
    "corpus",
    [{"files": {"urls": ["/data/*.py"], "lines": 1}}, {"hub": {"dataset": "a/b", "lines": 1}}],
    ids=lambda corpus: next(iter(corpus)),
)
def test_a_stranger_in_what_the_definition_does_not_spell_out_is_left_to_the_operator(api, corpus) -> None:
    spec = changed(SPECS["PretrainRun"], {"corpora": [corpus]})
    status, body = create(api, "PretrainRun", spec)
    assert status == CREATED, body
    with pytest.raises(ValidationError, match="lines"):
        PretrainRunSpec.model_validate(body["spec"])


@pytest.mark.parametrize("spec", examples(), ids=str)
def test_an_example_of_the_guide_is_accepted(api, spec) -> None:
    status, body = create(api, "PretrainRun", spec)
    assert status == CREATED, body


@pytest.mark.parametrize("kind", SPECS)
def test_a_name_is_refused_when_jobs_could_not_be_named_after_it(api, kind) -> None:
    assert create(api, kind, SPECS[kind], "a" * 40)[0] == CREATED
    status, body = create(api, kind, SPECS[kind], "a" * 41)
    assert status == UNPROCESSABLE
    assert "metadata.name must have at most 40 characters" in body["message"]


def test_the_stored_spec_has_every_default_of_the_models(api, stored) -> None:
    kind, body = stored
    assert body["spec"] == BY_KIND[kind].spec.model_validate(SPECS[kind]).wire()


def test_before_the_start_every_field_may_change(api, stored) -> None:
    kind, _ = stored
    status, body = patch_spec(api, kind, {"image": "other", "storage": {"claimName": "other"}})
    assert status == OK, body


def test_after_the_start_a_field_that_was_absent_may_not_appear(api, stored) -> None:
    kind, _ = stored
    start(api, kind)
    status, body = patch_spec(api, kind, {"image": "other"})
    assert status == UNPROCESSABLE
    assert f"spec.image is immutable once the run has started; create a new {kind} instead" in body["message"]


def test_after_the_start_a_field_that_was_set_may_not_go(api, stored) -> None:
    kind, _ = stored
    assert patch_spec(api, kind, {"image": "chosen"})[0] == OK
    start(api, kind)
    status, body = patch_spec(api, kind, {"image": None})
    assert status == UNPROCESSABLE
    assert "spec.image is immutable once the run has started" in body["message"]


def test_after_the_start_a_default_may_not_change(api, stored) -> None:
    kind, _ = stored
    start(api, kind)
    status, body = patch_spec(api, kind, {"placement": {"priorityClassName": "high"}})
    assert status == UNPROCESSABLE
    assert "spec.placement is immutable once the run has started" in body["message"]


def test_after_the_start_operational_fields_may_change_and_status_goes_on(api, stored) -> None:
    kind, _ = stored
    start(api, kind)
    change = {"suspend": True, "ttlSecondsAfterFinished": 60, "retry": {"maxAttempts": 9}}
    if kind == "PretrainRun":
        change["parallelism"] = {"nodes": 2, "processesPerNode": 2}
    assert set(change) == MUTABLE_FIELDS - ({"parallelism"} if kind != "PretrainRun" else set())
    status, body = patch_spec(api, kind, change)
    assert status == OK, body
    status, body = api.request(
        "PATCH", path_of(kind, "stored") + "/status", {"status": {"attempts": 2}}, content_type=MERGE_PATCH
    )
    assert status == OK, body
    assert body["status"]["attempts"] == 2
    assert body["status"]["startTime"] == "2026-01-01T00:00:00Z"


def test_writing_the_resource_does_not_touch_its_status(api) -> None:
    forged = {**resource("EvalRun", SPECS["EvalRun"], "forged"), "status": {"attempts": 5}}
    _, body = api.request("POST", path_of("EvalRun"), forged, dryRun="All")
    assert "status" not in body


STATUS: dict[str, dict[str, Any]] = {
    "CorpusBuild": {"splits": {"train": {"rows": 1234, "bytes": 1, "shards": 1}}},
    "TokenizerBuild": {"vocabSize": 4096},
    "PretrainRun": {"perplexity": 12.503417, "display": {"perplexity": "12.50"}},
    "EvalRun": {
        "results": [{"task": "p", "metric": "perplexity", "value": "12.503417", "n": 1000}],
        "display": {"value": "12.50"},
    },
}
SHOWN = {
    "CorpusBuild": [1234],
    "TokenizerBuild": [4096],
    "PretrainRun": ["2.501", "12.50"],
    "EvalRun": ["perplexity", "12.50"],
}


def test_kubectl_get_shows_state_progress_and_the_main_numbers(api, stored) -> None:
    kind, _ = stored
    condition = {"type": "Succeeded", "status": "Unknown", "reason": "Running", "message": "Pods run."}
    shared = {
        "conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "progress": {
            "text": "45/100 (45%)",
            "eta": "1m",
            "loss": "2.501",
            "metrics": [{"name": "loss", "value": "2.50083"}],
        },
        "currentStage": "train",
        "attempts": 1,
    }
    change = {"status": {**shared, **STATUS[kind]}}
    status, body = api.request("PATCH", path_of(kind, "stored") + "/status", change, content_type=MERGE_PATCH)
    assert status == OK, body
    assert body["status"].items() >= change["status"].items(), "the schema must not drop what the operator writes"
    _, table = api.request("GET", path_of(kind), accept=TABLE)
    head = [column["name"] for column in table["columnDefinitions"]]
    row = dict(zip(head, table["rows"][0]["cells"], strict=True))
    assert (row["State"], row["Progress"], row["ETA"]) == ("Running", "45/100 (45%)", "1m")
    own = [column.name for column in BY_KIND[kind].columns if column.name not in ("State", "Progress", "ETA", "Age")]
    assert [row[name] for name in own[: len(SHOWN[kind])]] == SHOWN[kind]
    assert (row["Stage"], row["Attempts"], row["Message"]) == ("train", 1, "Pods run.")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_kubectl_explains_a_field(control_plane, kind) -> None:
    text = control_plane.kubectl("explain", f"{kind.plural}.spec.suspend", "--api-version=hatchery.dev/v1alpha1")
    assert re.search(r"True terminates the pods gracefully", text)
