"""The operator as a process under its own permissions, on a real API server; the test plays kubelet and Job controller."""

import itertools
import json
from typing import Any

import pytest
from tests.support.operator.builders import artifact
from tests.support.operator.process import OperatorProcess, Team

from hatchery_api.conditions import Reason
from hatchery_api.contract import Report

pytestmark = pytest.mark.apiserver

PIPELINE = (("CorpusBuild", "corpus"), ("TokenizerBuild", "tokenizer"), ("PretrainRun", "model"), ("EvalRun", "eval"))
TEAMS = itertools.count()
JOBS = ("corpus-build-a1", "tokenizer-vocabulary-a1", "model-encode-a1", "model-train-a1", "eval-evaluate-a1")


@pytest.fixture
def team(api, operator) -> Team:
    """A namespace for each test."""
    return Team(api.request, f"team-{next(TEAMS)}")


def play(team: Team, *jobs: str) -> None:
    for name in jobs:
        team.run_pods(name)
        team.end_job(name)


def told(job: dict[str, Any]) -> dict[str, Any]:
    """What the pods of a Job are told."""
    text: str = job["spec"]["template"]["metadata"]["annotations"]["hatchery.dev/input"]
    found: dict[str, Any] = json.loads(text)
    return found


def events(team: Team, name: str) -> list[tuple[str, str]]:
    found = team.send("GET", team.core("events"))["items"]
    return sorted((event["type"], event["reason"]) for event in found if event["involvedObject"]["name"] == name)


def test_a_pipeline_applied_in_reverse_runs_to_its_end(team: Team, operator: OperatorProcess) -> None:
    for kind, name in reversed(PIPELINE):
        team.apply(kind, name)
    team.wait_reason("EvalRun", "eval", "Waiting")
    play(team, *JOBS)
    for kind, name in PIPELINE:
        team.wait_reason(kind, name, "Completed")
    assert sorted(team.jobs()) == sorted(JOBS)
    status = team.run("PretrainRun", "model")["status"]
    assert status["attempts"] == 2
    assert {record["role"]: record["digest"] for record in status["inputs"]} == {
        "corpus": "d-corpus-build-a1",
        "tokenizer": "d-tokenizer-vocabulary-a1",
    }
    assert status["artifact"]["digest"] == "d-model-train-a1"
    assert events(team, "model") == [
        ("Normal", "Completed"),
        ("Normal", "StageCompleted"),
    ]
    series = f'{{kind="EvalRun",name="eval",namespace="{team.name}",reason="Completed",status="True",type="Succeeded"}}'
    conditions = operator.metric("hatchery_resource_condition")
    assert any(set(series.strip("{}").split(",")) == set(labels.strip("{}").split(",")) for labels in conditions)


def test_what_the_pod_is_told_is_what_was_applied(team: Team) -> None:
    team.apply("CorpusBuild", "corpus", retry={"maxAttempts": 2})
    job = team.wait_job("corpus-build-a1")
    assert told(job)["spec"]["retry"]["maxAttempts"] == 2
    assert told(job)["output"]["root"] == f"claim://hatchery/{team.name}/corpusbuilds/corpus"
    assert told(job)["earlierFailure"] is None
    [volume] = [v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "input"]
    [item] = volume["downwardAPI"]["items"]
    field = {"apiVersion": "v1", "fieldPath": "metadata.annotations['hatchery.dev/input']"}
    assert (item["path"], item["fieldRef"]) == ("job.json", field)


def test_pods_are_admitted_where_only_restricted_ones_are(team: Team) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    team.send("PATCH", f"/api/v1/namespaces/{team.name}", {"metadata": {"labels": label}})
    team.apply("CorpusBuild", "corpus")
    assert team.run_pods("corpus-build-a1")["metadata"]["uid"]


def test_a_gang_has_a_service_and_is_accepted_by_the_api_server(team: Team) -> None:
    team.apply("CorpusBuild", "corpus")
    team.apply("TokenizerBuild", "tokenizer")
    team.apply("PretrainRun", "model", parallelism={"nodes": 2})
    play(team, "corpus-build-a1", "tokenizer-vocabulary-a1", "model-encode-a1")
    job = team.wait_job("model-train-a1")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    assert job["spec"]["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    service = team.send("GET", team.core("services", "model-train-a1"))
    assert service["spec"]["clusterIP"] == "None"
    policies = f"/apis/networking.k8s.io/v1/namespaces/{team.name}/networkpolicies"
    made = {one["metadata"]["name"]: one for one in team.send("GET", policies)["items"]}
    assert made.keys() == {"hatchery-runs", "model-train-a1"}
    assert made["model-train-a1"]["metadata"]["ownerReferences"] == service["metadata"]["ownerReferences"]


def test_an_operator_killed_while_a_job_runs_takes_it_up_again(team: Team, operator: OperatorProcess) -> None:
    team.apply("CorpusBuild", "corpus")
    team.run_pods("corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Running")
    operator.kill()
    team.end_job("corpus-build-a1")
    operator.start()
    team.wait_reason("CorpusBuild", "corpus", "Completed")
    assert list(team.jobs()) == ["corpus-build-a1"]
    assert team.run("CorpusBuild", "corpus")["status"]["attempts"] == 1


def test_an_operator_killed_right_after_the_intent_creates_the_same_job_once(
    team: Team, operator: OperatorProcess
) -> None:
    operator.kill()
    team.apply("CorpusBuild", "corpus")
    stage = {"name": "build", "state": "Waiting", "attempt": 1, "job": "corpus-build-a1"}
    intent = {"startTime": "2030-01-01T00:00:00Z", "attempts": 1, "stages": [stage]}
    team.send("PATCH", team.path("CorpusBuild", "corpus") + "/status", {"status": intent})
    operator.start()
    team.wait_job("corpus-build-a1")
    play(team, "corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Completed")
    assert list(team.jobs()) == ["corpus-build-a1"]
    assert team.run("CorpusBuild", "corpus")["status"]["attempts"] == 1


def test_a_finished_run_stays_finished_when_its_children_are_deleted_and_the_operator_restarts(
    team: Team, operator: OperatorProcess
) -> None:
    team.apply("CorpusBuild", "corpus")
    play(team, "corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Completed")
    operator.kill()
    team.send("DELETE", team.batch("corpus-build-a1"), {"propagationPolicy": "Background"})
    version = team.run("CorpusBuild", "corpus")["metadata"]["resourceVersion"]
    operator.start()
    team.apply("CorpusBuild", "other")
    team.wait_job("other-build-a1")
    assert list(team.jobs()) == ["other-build-a1"]
    assert team.run("CorpusBuild", "corpus")["metadata"]["resourceVersion"] == version


def test_the_budget_of_attempts_survives_restarts_and_deleted_jobs(team: Team, operator: OperatorProcess) -> None:
    team.apply("CorpusBuild", "corpus", retry={"maxAttempts": 2, "backoff": "1s"})
    report = Report(reason=Reason.STORAGE_ERROR, message="the disk is full")
    team.run_pods("corpus-build-a1")
    team.end_job("corpus-build-a1", report, 75)
    team.run_pods("corpus-build-a2")
    operator.kill()
    team.send("DELETE", team.batch("corpus-build-a1"), {"propagationPolicy": "Background"})
    team.end_job("corpus-build-a2", report, 75)
    operator.start()
    team.wait_reason("CorpusBuild", "corpus", "StorageError")
    status = team.run("CorpusBuild", "corpus")["status"]
    assert (status["attempts"], status["failures"]) == (2, 2)
    [(name, job)] = team.jobs().items()
    assert name == "corpus-build-a2"
    assert told(job)["earlierFailure"] == "StorageError"
    assert "the disk is full" in next(c["message"] for c in status["conditions"] if c["type"] == "Succeeded")


def test_a_job_deleted_by_hand_costs_an_attempt(team: Team) -> None:
    team.apply("CorpusBuild", "corpus", retry={"maxAttempts": 2, "backoff": "1s"})
    team.run_pods("corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Running")
    team.send("DELETE", team.batch("corpus-build-a1"), {"propagationPolicy": "Background"})
    # as the garbage collector does; the next attempt waits for it
    team.send("DELETE", team.core("pods", "corpus-build-a1-0"), {"gracePeriodSeconds": 0})
    team.wait_job("corpus-build-a2")
    assert team.run("CorpusBuild", "corpus")["status"]["failures"] == 1


def test_an_error_in_the_data_ends_the_run_with_the_words_of_the_pod(team: Team) -> None:
    team.apply("CorpusBuild", "corpus")
    team.run_pods("corpus-build-a1")
    report = Report(reason=Reason.EMPTY_CORPUS, message="no document is left: 12 read, 12 dropped by size")
    team.end_job("corpus-build-a1", report, 65)
    team.wait_reason("CorpusBuild", "corpus", "EmptyCorpus")
    assert team.condition("CorpusBuild", "corpus") == ("False", "EmptyCorpus")
    assert list(team.jobs()) == ["corpus-build-a1"]
    team.wait("the event", lambda: ("Warning", "EmptyCorpus") in events(team, "corpus"))


def test_suspending_and_resuming_keeps_the_job_and_the_attempt(team: Team) -> None:
    team.apply("CorpusBuild", "corpus")
    team.run_pods("corpus-build-a1")
    team.wait_reason("CorpusBuild", "corpus", "Running")
    team.patch("CorpusBuild", "corpus", suspend=True)
    team.wait("the Job is suspended", lambda: team.jobs()["corpus-build-a1"]["spec"]["suspend"])
    team.wait_reason("CorpusBuild", "corpus", "Suspending")
    team.job_status("corpus-build-a1", {"active": 0, "ready": 0})
    team.wait_reason("CorpusBuild", "corpus", "Suspended")
    team.patch("CorpusBuild", "corpus", suspend=False)
    team.wait("the Job goes on", lambda: not team.jobs()["corpus-build-a1"]["spec"]["suspend"])
    assert team.run("CorpusBuild", "corpus")["status"]["attempts"] == 1
    assert len(team.jobs()["corpus-build-a1"]["spec"]["template"]["spec"]["containers"]) == 1


def test_a_corpus_that_is_built_again_makes_its_dependents_stale_and_nothing_more(team: Team) -> None:
    team.apply("CorpusBuild", "corpus")
    team.apply("TokenizerBuild", "tokenizer")
    play(team, "corpus-build-a1", "tokenizer-vocabulary-a1")
    team.wait_reason("TokenizerBuild", "tokenizer", "Completed")
    team.send("DELETE", team.path("CorpusBuild", "corpus"), {"propagationPolicy": "Background"})
    for path in (
        team.batch("corpus-build-a1"),
        team.core("pods", "corpus-build-a1-0"),
    ):
        team.send("DELETE", path, {"propagationPolicy": "Background", "gracePeriodSeconds": 0})
    team.apply("CorpusBuild", "corpus")
    team.run_pods("corpus-build-a1")
    team.end_job("corpus-build-a1", Report(reason=Reason.COMPLETED, artifact=artifact("another digest")))
    team.wait_reason("TokenizerBuild", "tokenizer", "ReferenceChanged", "Stale")
    assert team.condition("TokenizerBuild", "tokenizer") == ("True", "Completed")
    assert sorted(team.jobs()) == ["corpus-build-a1", "tokenizer-vocabulary-a1"]


def test_a_job_of_somebody_else_is_left_alone_and_named(team: Team) -> None:
    container = {"name": "c", "image": "x"}
    theirs: dict[str, Any] = {
        "metadata": {"name": "corpus-build-a1"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    team.send("POST", team.batch(), theirs)
    team.apply("CorpusBuild", "corpus")
    team.wait_reason("CorpusBuild", "corpus", "NameConflict")
    assert "ownerReferences" not in team.jobs()["corpus-build-a1"]["metadata"]
    team.send("DELETE", team.batch("corpus-build-a1"), {"propagationPolicy": "Background"})
    team.wait_reason("CorpusBuild", "corpus", "Pending")


def test_pods_that_cannot_start_say_why(team: Team) -> None:
    team.apply("CorpusBuild", "corpus")
    team.run_pods("corpus-build-a1")
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    container = {"name": "main", "state": state, "image": "jobs:9", "imageID": "", "ready": False, "restartCount": 0}
    team.pod_status("corpus-build-a1-0", {"phase": "Pending", "containerStatuses": [container]})
    team.job_status("corpus-build-a1", {"active": 1, "ready": 0})
    team.wait_reason("CorpusBuild", "corpus", "ImagePullError")
    assert team.condition("CorpusBuild", "corpus", "Degraded") == ("True", "ImagePullError")


def test_pods_that_are_refused_say_why(team: Team) -> None:
    team.apply("CorpusBuild", "corpus")
    uid = team.wait_job("corpus-build-a1")["metadata"]["uid"]
    about = {"kind": "Job", "namespace": team.name, "name": "corpus-build-a1", "uid": uid, "apiVersion": "batch/v1"}
    event = {
        "metadata": {"name": "refused"},
        "involvedObject": about,
        "reason": "FailedCreate",
        "message": "Error creating: exceeded quota",
        "type": "Warning",
    }
    team.send("POST", team.core("events"), event)
    team.wait_reason("CorpusBuild", "corpus", "PodRefused")


def test_a_job_the_api_server_refuses_says_why(team: Team) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    made = team.send("POST", team.core("resourcequotas"), quota)
    hard = {"count/jobs.batch": "0"}
    team.send("PATCH", team.core("resourcequotas", "none") + "/status", {"status": {"hard": hard, "used": hard}})
    team.apply("CorpusBuild", "corpus")
    team.wait_reason("CorpusBuild", "corpus", "QuotaExceeded")
    assert made["metadata"]["name"] in str(team.run("CorpusBuild", "corpus")["status"]["conditions"])
    team.send("DELETE", team.core("resourcequotas", "none"))
    team.wait_job("corpus-build-a1")


def test_children_go_after_their_time_and_the_resource_stays(team: Team) -> None:
    team.apply("CorpusBuild", "corpus", ttlSecondsAfterFinished=0)
    play(team, "corpus-build-a1")
    team.wait("the Job is gone", lambda: not team.jobs())
    assert team.condition("CorpusBuild", "corpus") == ("True", "Completed")
    assert team.run("CorpusBuild", "corpus")["metadata"].get("finalizers") is None


def test_the_operator_lives_and_logs_no_error(operator: OperatorProcess) -> None:
    assert operator.get(operator.health, "/healthz") == (200, "ok")
    wrong = [line for line in operator.log() if line["level"] in ("error", "critical")]
    assert wrong == []
    assert operator.metric("hatchery_watch_missed_total") == {"": 0.0}
