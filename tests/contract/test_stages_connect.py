"""The five stages, run one after the other as the pods run them: each reads what the one before has made."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hatchery_api.contract import Report
from hatchery_api.kinds import BY_KIND

SOURCES = ("json", "email", "logging", "importlib")

SPECS = {
    "CorpusBuild": {
        "filters": {"preset": "codeparrot"},
        "dedup": {"near": {}},
        "split": {"validation": 0.1},
    },
    "TokenizerBuild": {"corpusRef": {"name": "x"}, "build": {}, "vocabSize": 512},
    "PretrainRun": {
        "corpora": [{"corpusRef": {"name": "x"}}],
        "tokenizerRef": {"name": "x"},
        "model": {"size": "tiny", "overrides": {"layers": 1, "heads": 2, "hiddenSize": 32}},
        "data": {"sequenceLength": 64},
        "schedule": {"steps": 6, "warmupSteps": 2},
        "batch": {"sequences": 4, "perDevice": 2},
        "checkpoint": {"everySteps": 3},
        "evaluate": {"everySteps": 3, "batches": 2},
    },
    "EvalRun": {
        "model": {"pretrainRef": {"name": "x"}},
        "tasks": [
            {"name": "ppl", "perplexity": {"corpusRef": {"name": "x", "split": "validation"}, "maxBatches": 2}},
            {"name": "say", "completion": {"preset": "none", "prompts": ["def f("], "numCompletions": 1}},
        ],
    },
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Report of each stage, by (kind, stage)."""
    folder = tmp_path_factory.mktemp("claims")
    library = Path(os.__file__).parent
    urls = [f"{library}/{package}/*.py" for package in SOURCES]
    done = {}

    def stage(kind, stage, *inputs):
        records = [
            {"role": role, "kind": of[0], "name": "x", **{k: getattr(done[of].artifact, k) for k in ("uri", "digest")}}
            for role, of in inputs
        ]
        spec = dict(SPECS[kind])
        if kind == "CorpusBuild":
            spec["sources"] = [{"name": "stdlib", "files": {"urls": urls}}]
        job = {
            "apiVersion": "hatchery.dev/v1alpha1",
            "kind": kind,
            "namespace": "n",
            "name": "x",
            "uid": "u",
            "stage": stage,
            "attempt": 1,
            "spec": spec,
            "inputs": records,
            "output": {"root": f"claim://data/n/{BY_KIND[kind].plural}/x"},
            "hub": {"endpoint": "http://127.0.0.1:1"},
        }
        path = folder / "job.json"
        path.write_text(json.dumps(job))
        environment = {
            **os.environ,
            "HATCHERY_CLAIMS_PATH": str(folder / "claims"),
            "HATCHERY_REPORT_PATH": str(folder / "report"),
            "HATCHERY_METRICS_PORT": "0",  # any free one: another test may serve on the usual one
            "HATCHERY_NODES": "1",
            "HATCHERY_PROCESSES_PER_NODE": "2",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "hatchery_jobs", "--input", str(path)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
        done[kind, stage] = Report.model_validate_json((folder / "report").read_text())

    corpus, tokenizer, tokens = ("CorpusBuild", "build"), ("TokenizerBuild", "vocabulary"), ("PretrainRun", "encode")
    model = ("PretrainRun", "train")
    stage(*corpus)
    stage(*tokenizer, ("corpus", corpus))
    stage(*tokens, ("corpus", corpus), ("tokenizer", tokenizer))
    stage(*model, ("tokens", tokens), ("tokenizer", tokenizer))
    stage("EvalRun", "evaluate", ("model", model), ("corpus-ppl", corpus))
    return done


@pytest.mark.parametrize("kind", BY_KIND)
def test_what_a_stage_reports_is_what_the_status_takes(reports, kind):
    report = reports[kind, BY_KIND[kind].stages[-1]]
    result = BY_KIND[kind].result.model_validate(report.result)
    assert result.wire() == report.result


def test_a_trained_tokenizer_has_the_size_that_was_asked_for(reports):
    assert reports["TokenizerBuild", "vocabulary"].result["vocabSize"] == 512


def test_the_model_has_that_vocabulary_and_begins_by_guessing(reports):
    initial = reports["PretrainRun", "train"].result["initialPerplexity"]
    assert initial == pytest.approx(512 * math.exp(0.2), rel=0.1)  # the spread of fresh weights adds to guessing


def test_the_evaluation_reports_each_task(reports):
    tasks = {r["task"] for r in reports["EvalRun", "evaluate"].result["results"]}
    assert "ppl" in tasks
    assert reports["EvalRun", "evaluate"].result["samples"][0]["task"] == "say"
