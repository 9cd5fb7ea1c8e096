"""Who may say that a Job waits: the run, a queue such as Kueue, or a change of size; on a real API server."""

import itertools

import pytest
from tests.support.operator.process import Object, Team

pytestmark = pytest.mark.apiserver

TEAMS = itertools.count()
QUEUE = "kueue"
"""Field manager of the controller that the test plays."""

JOB = "corpus-build-a1"


@pytest.fixture
def team(api, operator) -> Team:
    return Team(api.request, f"queue-{next(TEAMS)}")


def admit(team: Team, name: str) -> None:
    """What Kueue does with a Job it admits: first where it may run, then that it may."""
    template = {"spec": {"nodeSelector": {"flavor": "spot"}}}
    team.send("PATCH", team.batch(name), {"spec": {"template": template}}, fieldManager=QUEUE)
    team.send("PATCH", team.batch(name), {"spec": {"suspend": False}}, fieldManager=QUEUE)


def take_back(team: Team, name: str) -> None:
    """What Kueue does with a Job it preempts, and the Job controller then with its pods."""
    team.send("PATCH", team.batch(name), {"spec": {"suspend": True}}, fieldManager=QUEUE)
    end_pods(team, name)


def end_pods(team: Team, name: str) -> None:
    team.send("DELETE", team.core("pods", f"{name}-0"), {"gracePeriodSeconds": 0})
    team.job_status(name, {"active": 0, "ready": 0, "startTime": None})


def who_suspends(job: Object) -> set[str]:
    """Field managers of `spec.suspend`."""
    entries = job["metadata"]["managedFields"]
    return {entry["manager"] for entry in entries if "f:suspend" in entry.get("fieldsV1", {}).get("f:spec", {})}


def test_a_queue_admits_preempts_and_admits_again_and_nobody_else_suspends(team: Team) -> None:
    team.apply("CorpusBuild", "corpus", placement={"queueName": "team"})
    made = team.wait_job(JOB)
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    team.wait_reason("CorpusBuild", "corpus", "Queued")
    for _ in range(2):
        admit(team, JOB)
        team.run_pods(JOB)
        team.wait_reason("CorpusBuild", "corpus", "Running")
        take_back(team, JOB)
        team.wait_reason("CorpusBuild", "corpus", "Preempted")
        assert who_suspends(team.jobs()[JOB]) == {QUEUE}
    admit(team, JOB)
    team.run_pods(JOB)
    team.end_job(JOB)
    team.wait_reason("CorpusBuild", "corpus", "Completed")
    job, status = team.jobs()[JOB], team.run("CorpusBuild", "corpus")["status"]
    assert who_suspends(job) == {QUEUE}
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"flavor": "spot"}
    assert (job["metadata"]["uid"], list(team.jobs())) == (made["metadata"]["uid"], [JOB])
    assert (status["attempts"], status["failures"], status["disruptions"]) == (1, 0, 2)


def collect(team: Team, name: str) -> None:
    """What the garbage collector does once the pods of a Job that is deleted in the foreground are gone."""
    team.wait("the deletion", lambda: "deletionTimestamp" in team.jobs()[name]["metadata"])
    assert team.jobs()[name]["metadata"]["finalizers"] == ["foregroundDeletion"]
    team.send("DELETE", team.core("pods", f"{name}-0"), {"gracePeriodSeconds": 0})
    team.send("PATCH", team.batch(name), {"metadata": {"finalizers": None}})


def test_a_suspended_run_in_a_queue_gives_its_job_back_and_asks_again_when_it_goes_on(team: Team) -> None:
    team.apply("CorpusBuild", "corpus", placement={"queueName": "team"})
    team.wait_job(JOB)
    admit(team, JOB)
    team.run_pods(JOB)
    team.wait_reason("CorpusBuild", "corpus", "Running")
    team.patch("CorpusBuild", "corpus", suspend=True)
    team.wait_reason("CorpusBuild", "corpus", "Suspending")
    collect(team, JOB)
    team.wait_reason("CorpusBuild", "corpus", "Suspended")
    assert team.jobs() == {}
    team.patch("CorpusBuild", "corpus", suspend=False)
    assert team.wait_job(JOB)["spec"]["suspend"] is True
    team.wait_reason("CorpusBuild", "corpus", "Queued")
    status = team.run("CorpusBuild", "corpus")["status"]
    assert (status["attempts"], status["failures"]) == (1, 0)


def test_a_run_is_resized_by_its_own_attempt_which_is_made_again(team: Team) -> None:
    for kind, name in (("CorpusBuild", "corpus"), ("TokenizerBuild", "tokenizer"), ("PretrainRun", "model")):
        team.apply(kind, name)
    for name in (JOB, "tokenizer-vocabulary-a1", "model-encode-a1"):
        team.run_pods(name)
        team.end_job(name)
    team.run_pods("model-train-a1")
    team.wait_reason("PretrainRun", "model", "Running")
    team.patch("PretrainRun", "model", parallelism={"nodes": 2})
    team.wait_reason("PretrainRun", "model", "Resizing")
    collect(team, "model-train-a1")
    team.wait("the new size", lambda: team.jobs().get("model-train-a1", {"spec": {}})["spec"].get("completions") == 2)
    status = team.run("PretrainRun", "model")["status"]
    assert (status["attempts"], status["failures"], status["disruptions"]) == (2, 0, 0)
