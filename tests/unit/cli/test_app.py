import json
import subprocess
import sys

import pytest
import yaml
from tests.support.operator.status_objects import FakeCluster, completed, condition, failed, pipeline, resource, running

from hatchery_api import __version__
from hatchery_cli import app as commands
from hatchery_cli.client import api_message
from hatchery_cli.errors import CommandError, Exit


@pytest.fixture
def hatchery(monkeypatch, capsys):
    """Runs a command line on a cluster of recorded objects; gives exit code, output and error output."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)

    def run(cluster, *arguments):
        monkeypatch.setattr(commands, "connect", lambda *_: cluster)
        monkeypatch.setattr(sys, "argv", ["hatchery", *arguments])
        with pytest.raises(SystemExit) as end:
            commands.run()
        return end.value.code, *capsys.readouterr()

    return run


def test_status_shows_all_four_kinds_in_one_table(hatchery):
    cluster = FakeCluster([pipeline()])
    code, out, _ = hatchery(cluster, "status")
    assert code == Exit.OK
    assert cluster.asked == ["team"]
    assert [line.split()[0] for line in out.splitlines() if "tiny" in line] == [
        "CorpusBuild",
        "TokenizerBuild",
        "PretrainRun",
        "EvalRun",
    ]
    assert "\x1b[" not in out


def test_status_of_a_working_run(hatchery):
    _, out, _ = hatchery(FakeCluster([[running()]]), "status", "-n", "other")
    for fact in ("PretrainRun", "train", "Running", "90/200 steps (45%)", "3.250", "4,100", "1m10s"):
        assert fact in out


def test_status_of_all_namespaces_names_them(hatchery):
    cluster = FakeCluster([[running(), resource("EvalRun", namespace="other")]])
    _, out, _ = hatchery(cluster, "status", "-A")
    assert cluster.asked == [None]
    assert "team/tiny" in out
    assert "other/tiny" in out


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_machine_readable_status_is_what_the_api_returned(hatchery, form, load):
    _, out, _ = hatchery(FakeCluster([pipeline()]), "status", "-o", form)
    assert load(out)["items"] == pipeline()


def test_status_of_an_empty_namespace_names_the_next_command(hatchery):
    code, out, _ = hatchery(FakeCluster([[]]), "status")
    assert (code, "hatchery apply" in out) == (Exit.OK, True)


def test_summary_shows_every_result(hatchery):
    code, out, _ = hatchery(FakeCluster([pipeline()]), "summary")
    assert code == Exit.OK
    for fact in (
        "Completed in 4m05s, 1 Job, 0 failures, 0 disruptions",
        "maxLineLength",
        "1,500",
        "75.0%",
        "50.0%",
        "duplicates: 12 exact, 500 near in 40 clusters, largest cluster 9 documents",
        "split train: 950 documents, 2.0 KiB, 1 file",
        "quarantined: 3 unreadable files or rows",
        "vocabulary of 4,096 tokens, trained on 950 documents",
        "fertility",
        "1.750",
        "Tokens per word.",
        "keywords split into several tokens: nonlocal, await",
        "parameters 1,400,000",
        "tokens/s 4,100",
        "MFU 41.4%",
        "goodput 93.0%",
        "guard: 3 batches skipped, 1 rollback",
        "initial loss 8.300",
        "validation loss 3.200",
        "perplexity 4,000 before training, 25.00 after: 160.0 times lower",
        "resumed at step 150",
        "24.90",
        "samples of completion",
        "prompt      def area(w, h):⏎",
        "completion      return w * h",
        "claim://hatchery/team/pretrainruns/tiny/0123456789abcdef  3.0 MiB",
        "digest sha-of-PretrainRun",
        "http://hub.test/org/PretrainRun",
        "org/PretrainRun at revision-of-PretrainRun",
        "hatchery watch evalrun/tiny -n team",
    ):
        assert fact in out, fact


def evaluated(**status):
    return completed("EvalRun", **status)


def measure(task, metric, value):
    return {"task": task, "metric": metric, "value": value, "n": 9}


def test_results_are_grouped_by_task_and_rounded(hatchery):
    ranked = [
        measure("ppl", "perplexity", "90.20550417490631"),
        measure("say", "parses", "0.8"),
        measure("ppl", "loss", "4.502"),
        measure("ppl", "bitsPerByte", "inf"),
    ]
    _, out, _ = hatchery(FakeCluster([[evaluated(results=ranked)]]), "summary")
    rows = [line.split() for line in out.splitlines() if line.rstrip().endswith(" 9")]
    assert rows == [
        ["ppl", "perplexity", "90.21", "9"],
        ["loss", "4.502", "9"],
        ["bitsPerByte", "inf", "9"],
        ["say", "parses", "0.8000", "9"],
    ]


def test_machine_readable_results_are_exact(hatchery):
    ranked = [measure("ppl", "perplexity", "90.20550417490631")]
    _, out, _ = hatchery(FakeCluster([[evaluated(results=ranked)]]), "summary", "-o", "json")
    assert json.loads(out)[0]["status"]["results"] == ranked


def test_completions_stand_apart_from_their_prompts_and_are_cut_between_words(hatchery):
    samples = [
        {"task": "say", "prompt": "def f():\n", "completion": "    return 1\n\nprint(f())"},
        {"task": "say", "prompt": "once", "completion": "word " * 100},
        {"task": "tell", "prompt": "\x1b[31mred", "completion": ""},
    ]
    _, out, _ = hatchery(FakeCluster([[evaluated(samples=samples)]]), "summary")
    lines = [line.rstrip() for line in out.splitlines()]
    start = lines.index("  samples of say")
    assert lines[start + 1 : start + 6] == [
        "  prompt      def f():⏎",
        "  completion      return 1⏎",
        "              ⏎",
        "              print(f())",
        "  prompt      once",
    ]
    assert "word word…" in out
    assert "  samples of tell" in lines
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("counts", "text"),
    [((1, 1, 1), "1 Job, 1 failure, 1 disruption"), ((2, 0, 3), "2 Jobs, 0 failures, 3 disruptions")],
)
def test_counts_are_singular_or_plural(hatchery, counts, text):
    made = evaluated()
    made["status"] |= dict(zip(("attempts", "failures", "disruptions"), counts, strict=True))
    _, out, _ = hatchery(FakeCluster([[made]]), "summary")
    assert f"Completed in 4m05s, {text}\n" in out


def test_summary_draws_the_curve_that_was_pushed(hatchery, monkeypatch):
    asked = []

    def read(hub, endpoint, token):
        asked.append((hub.repo, endpoint, token))
        return [(1.0, 8.5), (300.0, 3.25)]

    monkeypatch.setattr(commands, "read_from_hub", read)
    monkeypatch.setenv("HF_TOKEN", "secret")
    _, out, _ = hatchery(FakeCluster([pipeline()]), "summary", "--hub-endpoint", "http://127.0.0.1:1")
    assert asked == [("org/PretrainRun", "http://127.0.0.1:1", "secret")]
    assert "training loss by step" in out
    assert "8.500" in out


def test_summary_without_the_hub_explains_the_missing_curve(hatchery):
    code, out, _ = hatchery(FakeCluster([pipeline()]), "summary", "--hub-endpoint", "http://127.0.0.1:1")
    assert code == Exit.OK
    assert "loss curve: cannot be read from the Hub" in out


def test_machine_readable_summary(hatchery, monkeypatch):
    monkeypatch.setattr(commands, "read_from_hub", lambda *_: [(1.0, 8.5)])
    _, out, _ = hatchery(FakeCluster([pipeline()]), "summary", "pt/tiny", "-o", "json")
    [fact] = json.loads(out)
    assert (fact["kind"], fact["perplexityRatio"], fact["lossCurve"]) == ("PretrainRun", 160.0, [[1.0, 8.5]])
    assert fact["status"]["hub"]["revision"] == "revision-of-PretrainRun"


def test_summary_of_a_failed_run_shows_its_card(hatchery):
    _, out, _ = hatchery(FakeCluster([[failed()]]), "summary")
    assert "PretrainRun tiny: NonFiniteLoss" in out
    assert "step 17" in out


@pytest.mark.parametrize(("state", "code"), [(pipeline(), Exit.OK), ([failed()], Exit.FAILED)])
def test_watch_exits_with_the_outcome_of_the_runs(hatchery, state, code):
    assert hatchery(FakeCluster([state]), "watch", "--all")[0] == code


def test_an_interrupted_watch_shows_how_to_reattach(hatchery, monkeypatch):
    monkeypatch.setattr(commands.Watch, "run", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    code, out, _ = hatchery(FakeCluster([[running()]]), "watch", "tiny")
    assert code == Exit.DETACHED
    assert "hatchery watch tiny -n team" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["watch"], "name one or more runs"),
        (["watch", "x", "--all"], "name one or more runs"),
        (["watch", "x"], "x: no such run"),
        (["watch", "tiny", "--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["summary", "x"], "x: no such run"),
        (["status", "-o", "xml"], "xml"),
        (["stauts"], "stauts"),
        (["apply", "-f", "/nonexistent.yaml"], "/nonexistent.yaml"),
    ],
)
def test_invalid_usage_exits_with_2_and_the_reason(hatchery, arguments, words):
    code, _, err = hatchery(FakeCluster([[running()]]), *arguments)
    assert code == Exit.USAGE
    assert words in err


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "run.yaml"
    documents = [
        {"apiVersion": "hatchery.dev/v1alpha1", "kind": k, "metadata": {"name": "x"}}
        for k in ("EvalRun", "CorpusBuild")
    ]
    path.write_text(yaml.safe_dump_all([*documents, None]))
    return path


def test_apply_sends_every_document(hatchery, manifest):
    cluster = FakeCluster([[]])
    code, out, _ = hatchery(cluster, "apply", "-f", str(manifest), "-n", "there")
    assert code == Exit.OK
    assert [(r["kind"], n, dry) for r, n, dry in cluster.applied] == [
        ("EvalRun", "there", False),
        ("CorpusBuild", "there", False),
    ]
    assert "evalrun/x applied" in out
    assert "hatchery watch --all -n there" in out


def test_a_dry_run_changes_nothing(hatchery, manifest):
    cluster = FakeCluster([[]])
    _, out, _ = hatchery(cluster, "apply", "-f", str(manifest), "--dry-run")
    assert [dry for _, _, dry in cluster.applied] == [True, True]
    assert "evalrun/x would be applied" in out


def test_every_rejected_file_is_reported(hatchery, manifest):
    cluster = FakeCluster([[]], refuse=CommandError("apply EvalRun x: spec.tasks: Required value", Exit.FAILED))
    code, _, err = hatchery(cluster, "apply", "-f", str(manifest))
    assert code == Exit.FAILED
    assert err.count(f"{manifest}: apply EvalRun x: spec.tasks: Required value") == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: EvalRun", "document 1: needs apiVersion"),
        ("- 1", "document 1: needs"),
        ("a: [", "while parsing"),
        ("---\napiVersion: v1\nkind: Secret\nmetadata: {}", "Secret needs metadata.name"),
    ],
)
def test_a_file_that_is_not_a_manifest_is_rejected_before_anything_is_sent(hatchery, manifest, text, words):
    broken = manifest.with_name("broken.yaml")
    broken.write_text(text)
    cluster = FakeCluster([[]])
    code, _, err = hatchery(cluster, "apply", "-f", str(manifest), "-f", str(broken))
    assert (code, cluster.applied) == (Exit.USAGE, [])
    assert words in err


def test_an_error_of_the_api_server_becomes_a_line_per_field():
    causes = [
        {"field": "spec.schedule", "message": "warmupSteps must be below steps"},
        {"field": "spec.model", "message": "no"},
    ]
    text = api_message(422, json.dumps({"message": "long", "details": {"causes": causes}}))
    assert text == "2 invalid fields:\n  spec.schedule: warmupSteps must be below steps\n  spec.model: no"


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (404, "404 page not found", "is the chart installed"),
        (409, json.dumps({"message": "conflict with helm"}), "another field manager owns these fields"),
        (403, json.dumps({"message": "forbidden"}), "forbidden"),
        (500, None, "HTTP status 500"),
    ],
)
def test_other_errors_name_a_remedy(code, body, words):
    assert words in api_message(code, body)


def test_the_version_is_printed_without_loading_the_kubernetes_client():
    script = "import sys; sys.argv = ['hatchery', '--version']\nfrom hatchery_cli.app import run\n"
    script += "try:\n    run()\nexcept SystemExit as end:\n    print(end.code, 'kubernetes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hatchery", __version__, "0", "False"]


def test_status_explains_runs_without_progress(hatchery):
    stalled = running()
    stalled["status"]["conditions"].append(condition("Stalled", "True", "NoProgress", "no progress since ten"))
    runs = [stalled, failed("CorpusBuild", "other"), completed("EvalRun")]
    code, out, _ = hatchery(FakeCluster([runs]), "status")
    assert code == Exit.OK
    for fact in ("Stalled", "pretrainrun/tiny", "no progress since ten", "the loss is nan"):
        assert fact in out
    assert "evalrun/tiny" not in out
