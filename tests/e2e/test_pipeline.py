"""The whole pipeline on a real cluster, undisturbed and disturbed, seen in the Hub and in Prometheus."""

import itertools
import json
import math
import os
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest
from tests.support.kube.installation import TOKEN_SECRET
from tests.support.kube.kubectl import condition, succeeded

ORGANISATION = "e2e"
STEPS = 600
LABEL = "hatchery.dev/name"


def resource(kind, namespace, name, hub, **spec):
    push = {"repo": f"{ORGANISATION}/{name}", "tokenSecret": {"name": TOKEN_SECRET}, "endpoint": hub.endpoint}
    return {
        "apiVersion": "hatchery.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**spec, "hub": push},
    }


def pretrain_run(namespace, name, hub):
    return resource(
        "PretrainRun",
        namespace,
        name,
        hub,
        corpora=[{"corpusRef": {"name": "corpus"}}],
        tokenizerRef={"name": "tokenizer"},
        model={"size": "tiny", "overrides": {"layers": 2, "heads": 4, "hiddenSize": 128, "dropout": 0.1}},
        data={"sequenceLength": 128},
        schedule={"steps": STEPS, "warmupSteps": 10, "peakLr": 3e-3},
        batch={"sequences": 16, "perDevice": 8},
        parallelism={"nodes": 2},
        checkpoint={"everySteps": 60, "keepLast": 2, "gracePeriod": "60s"},
        evaluate={"everySteps": 200, "batches": 4},
    )


@pytest.fixture(scope="module")
def pipeline(kube, namespace, hub, prometheus):
    """All four resources applied at once, the last one first; gives their final objects."""
    library = "/opt/hatchery/python-stdlib"
    corpus = resource(
        "CorpusBuild",
        namespace,
        "corpus",
        hub,
        sources=[
            {
                "name": "stdlib",
                "files": {
                    "urls": [
                        f"{library}/{p}/**/*.py"
                        for p in ("asyncio", "email", "json", "unittest", "xml", "http", "logging")
                    ]
                },
            }
        ],
        filters={"preset": "codeparrot"},
        dedup={"near": {}},
        split={"validation": 0.1},
    )
    tokenizer = resource(
        "TokenizerBuild", namespace, "tokenizer", hub, corpusRef={"name": "corpus"}, build={}, vocabSize=1024
    )
    evaluation = resource(
        "EvalRun",
        namespace,
        "evaluation",
        hub,
        model={"pretrainRef": {"name": "model"}},
        tasks=[
            {"name": "perplexity", "perplexity": {"corpusRef": {"name": "corpus", "split": "validation"}}},
            {"name": "completion", "completion": {"numCompletions": 1, "maxLength": 128}},
        ],
    )
    for one in (evaluation, pretrain_run(namespace, "model", hub), tokenizer, corpus):
        kube.apply(one)
    names = {"CorpusBuild": "corpus", "TokenizerBuild": "tokenizer", "PretrainRun": "model", "EvalRun": "evaluation"}
    return {kind: kube.wait_succeeded(kind, namespace, name, 900) for kind, name in names.items()}


def query(prometheus, expression):
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)["data"]["result"]


def hub_script(hub, script, tmp_path):
    """Runs a script with a Hub client that knows only our server; the client reads its endpoint at import."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def curve(hub, repo, tmp_path):
    script = f"""
import itertools
import json
from huggingface_hub import hf_hub_download
print(json.dumps([json.loads(l) for l in open(hf_hub_download("{repo}", "metrics.jsonl"))]))
"""
    return hub_script(hub, script, tmp_path)


def test_applied_in_any_order_everything_succeeds(pipeline):
    assert all(succeeded(one) for one in pipeline.values())
    assert all(one["status"]["observedGeneration"] == one["metadata"]["generation"] for one in pipeline.values())


def test_the_funnel_accounts_for_every_document(pipeline):
    funnel = pipeline["CorpusBuild"]["status"]["funnel"]
    for before, after in itertools.pairwise(funnel):
        assert before["rows"] - after["dropped"] == after["rows"], (before, after)
    splits = pipeline["CorpusBuild"]["status"]["splits"]
    assert splits["train"]["rows"] + splits["validation"]["rows"] == funnel[-1]["rows"] > 0


def test_the_tokenizer_has_the_vocabulary_it_was_asked_for(pipeline):
    status = pipeline["TokenizerBuild"]["status"]
    assert status["vocabSize"] == 1024
    assert status["metrics"]["roundTrip"] == 1.0
    assert status["metrics"]["fertility"] >= 1


def test_training_lowers_the_perplexity_at_least_tenfold(pipeline):
    status = pipeline["PretrainRun"]["status"]
    assert status["initialPerplexity"] == pytest.approx(
        1024 * math.exp(0.2), rel=0.1
    )  # what the spread of fresh weights adds to guessing
    assert status["perplexity"] <= status["initialPerplexity"] / 10
    assert status["step"] == status["steps"] == STEPS
    assert status["attempts"] == 2  # one Job to encode, one to train


def test_the_evaluation_agrees_with_the_run(pipeline):
    results = {(r["task"], r["metric"]): r for r in pipeline["EvalRun"]["status"]["results"]}
    measured = float(results["perplexity", "perplexity"]["value"])
    # the run measures 4 batches of the same split, the evaluation all of it
    assert math.log(measured) == pytest.approx(math.log(pipeline["PretrainRun"]["status"]["perplexity"]), rel=0.15)
    assert pipeline["EvalRun"]["status"]["samples"]


def test_each_input_is_recorded_with_the_digest_of_what_was_made(pipeline):
    made = {one["metadata"]["name"]: one["status"]["artifact"]["digest"] for one in pipeline.values()}
    for one in pipeline.values():
        for used in one["status"].get("inputs", []):
            if used["role"] != "tokens":
                assert used["digest"] == made[used["name"]]


def test_the_hub_has_what_the_status_says(pipeline, hub, tmp_path):
    script = """
import itertools
import json
from huggingface_hub import HfApi
api = HfApi()
kinds = {"corpus": "dataset", "tokenizer": "model", "model": "model", "evaluation": "dataset"}
print(json.dumps({n: api.repo_info(f"e2e/{n}", repo_type=t).sha for n, t in kinds.items()}))
"""
    shas = hub_script(hub, script, tmp_path)
    for one in pipeline.values():
        assert one["status"]["hub"]["revision"] == shas[one["metadata"]["name"]]


def test_dataset_tokenizer_and_model_load_from_the_hub(pipeline, hub, tmp_path):
    script = """
import json, torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
data = load_dataset("e2e/corpus")
tokenizer = AutoTokenizer.from_pretrained("e2e/tokenizer")
model = AutoModelForCausalLM.from_pretrained("e2e/model")
text = data["validation"][0]["text"]
ids = tokenizer(text)["input_ids"]
loss = model(torch.tensor([ids[:128]]), labels=torch.tensor([ids[:128]])).loss.item()
print(json.dumps({"rows": {s: len(d) for s, d in data.items()}, "same": tokenizer.decode(ids) == text,
                  "vocabulary": len(tokenizer), "model": model.config.vocab_size, "loss": loss}))
"""
    read = hub_script(hub, script, tmp_path)
    splits = pipeline["CorpusBuild"]["status"]["splits"]
    assert read["rows"] == {name: size["rows"] for name, size in splits.items()}
    assert read["same"]
    assert read["vocabulary"] == read["model"] == 1024
    assert read["loss"] < math.log(1024) - 1


def test_prometheus_answers_for_the_loss_of_the_run(pipeline, namespace, prometheus):
    if prometheus is None:
        pytest.skip("the cluster of HATCHERY_KUBECONTEXT has a Prometheus of its own, with targets of its own")
    live = f'max_over_time(hatchery_train_loss{{namespace="{namespace}",run="model"}}[1h])'
    assert query(prometheus, live), "Prometheus never scraped a loss from the training pod"
    final = f'hatchery_run_loss{{exported_namespace="{namespace}",name="model",split="validation"}}'
    assert query(prometheus, final), "the operator does not export the final loss"


def test_a_run_that_loses_a_pod_and_the_operator_has_the_undisturbed_curve(
    kube, namespace, pipeline, hub, operator, tmp_path
):
    kube.apply(pretrain_run(namespace, "disturbed", hub))

    def step(one):
        status = one.get("status", {})
        metrics = {m["name"]: m["value"] for m in (status.get("progress") or {}).get("metrics", [])}
        return int(metrics.get("done", 0)) if status.get("currentStage") == "train" else 0

    kube.wait("PretrainRun", namespace, "disturbed", lambda one: step(one) >= 90, 600)
    pod = kube.wait_pod(
        namespace,
        f"{LABEL}=disturbed,batch.kubernetes.io/job-completion-index=1",
        lambda p: p.status.phase == "Running",
    )
    kube.core.delete_namespaced_pod(pod.metadata.name, namespace)
    kube.kubectl("delete", "pods", "-n", operator, "--all", "--grace-period=0", "--force")
    final = kube.wait_succeeded("PretrainRun", namespace, "disturbed", 900)

    assert final["status"]["attempts"] == 2, "an attempt was charged for a lost pod"
    jobs = kube.batch.list_namespaced_job(namespace, label_selector=f"{LABEL}=disturbed").items
    assert len(jobs) == 2, [j.metadata.name for j in jobs]
    assert final["status"]["resumedFrom"], "the run did not resume"
    assert curve(hub, "e2e/disturbed", tmp_path / "a") == curve(hub, "e2e/model", tmp_path / "b")
    assert final["status"]["perplexity"] == pipeline["PretrainRun"]["status"]["perplexity"]


def test_a_finished_run_whose_jobs_are_deleted_stays_finished(kube, namespace, pipeline, operator):
    before = kube.get("CorpusBuild", namespace, "corpus")
    kube.kubectl("delete", "jobs", "-n", namespace, "-l", f"{LABEL}=corpus")
    kube.kubectl("annotate", "corpusbuild", "-n", namespace, "corpus", "touched=yes")
    kube.kubectl("rollout", "restart", "-n", operator, "deployment")
    kube.kubectl("rollout", "status", "-n", operator, "deployment", "--timeout=120s")
    after = kube.get("CorpusBuild", namespace, "corpus")
    assert not kube.batch.list_namespaced_job(namespace, label_selector=f"{LABEL}=corpus").items
    assert condition(after, "Succeeded") == condition(before, "Succeeded")


def test_kubectl_get_shows_the_pipeline(kube, namespace, pipeline):
    table = kube.kubectl("get", "hatchery", "-n", namespace)
    assert table.count("Completed") >= 4
