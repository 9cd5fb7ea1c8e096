"""The operator against everything at once: users, other controllers, late watches, lost answers, its own deaths.

Hypothesis looks for a course of events that breaks a promise: one Job at a time and never two gangs, attempts within
the budget and as many as Jobs, ends that are latched, a status that says what is, no write without a reason, and a way
to the end from everywhere. `ModelCluster` checks every write; this file checks what only a settled cluster shows. The
last tests break the operator on purpose, so that it is known that broken promises are found.
"""

import asyncio
import itertools
import logging
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, cast, get_args

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.support.operator.builders import NAMESPACE, NOW, manifest, with_status
from tests.support.operator.fake_cluster import CrashError
from tests.support.operator.model_cluster import Fault, ModelCluster, Outcome

from hatchery_api.conditions import ConditionType
from hatchery_api.placement import Retry
from hatchery_api.status import StageState
from hatchery_operator.controller import reconciler as reconcile
from hatchery_operator.controller.handlers import on_job_event, on_run_event
from hatchery_operator.controller.observe import referenced_keys
from hatchery_operator.controller.reconciler import Reconciler
from hatchery_operator.domain import backoff
from hatchery_operator.domain.labels import QUEUE_LABEL
from hatchery_operator.domain.objects import Key, Manifest, Run, parse_run, rfc3339
from hatchery_operator.errors import ApiError, OperatorError, RefusedError
from hatchery_operator.kube.cache import Cache
from hatchery_operator.kube.client import Cluster
from hatchery_operator.kube.crd_check import CrdCheck
from hatchery_operator.kube.resync import Resync
from hatchery_operator.planning import plan
from hatchery_operator.settings import Settings
from hatchery_operator.stages import references
from hatchery_operator.telemetry.metrics import Metrics

KINDS: Final = {"corpus": "CorpusBuild", "tokenizer": "TokenizerBuild", "model": "PretrainRun", "eval": "EvalRun"}
"""The resources by name: each needs the one before it."""

COURSES: Final = settings(
    max_examples=250,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    print_blob=False,
)

SEED: Final = 1
"""Seed of all courses: by default it would follow from the text of this file, and change with every edit of it."""

MOST_NODES: Final = 16
"""Nodes that find work in the default batch."""

MOST_PASSES: Final = 40
"""Passes over all resources after which they must have settled."""

MOST_PASSES_ALONE: Final = 6
"""Passes over one resource after which it must have settled, as far as that goes without news."""

specs = st.builds(
    lambda budget, ttl, queue: {"retry": {"maxAttempts": budget, "backoff": "30s"}} | ttl | queue,
    st.integers(1, 3),
    st.sampled_from([{}, {}, {"ttlSecondsAfterFinished": 0}, {"ttlSecondsAfterFinished": 60}]),
    st.sampled_from([{}, {}, {"placement": {"queueName": "team"}}]),
)
faults: st.SearchStrategy[Fault] = st.sampled_from(
    ["none", "none", "none", "lost", "unanswered", "crash before", "crash after", "conflict"]
)
outcomes: st.SearchStrategy[Outcome] = st.sampled_from(
    ["done", "done", "no report", "error", "error", "permanent", "interrupted"]
)


@seed(SEED)
class Operator(RuleBasedStateMachine):
    """Its rules are what may happen to an operator and its cluster."""

    runner: ClassVar[asyncio.Runner]
    reached: ClassVar[set[str]] = set()
    """States of stages in any course so far."""

    @initialize(ready=st.sampled_from([0, 1, 2, 2]), data=st.data())
    def begin(self, ready: int, data: st.DataObject) -> None:
        """The first resources are finished, the next one is there, the others come later."""
        self.now = NOW
        self.cluster = ModelCluster()
        self.cluster.clock = rfc3339(self.now)
        self.metrics = Metrics()
        self.crd_check = CrdCheck(cast("Cluster", self.cluster), self.metrics.crd_outdated)
        for name in list(KINDS)[:ready]:
            self.cluster.add_finished(KINDS[name], name)
        name = list(KINDS)[ready]
        self.cluster.add(manifest(KINDS[name], name, **data.draw(specs)))
        if name == "model" and data.draw(st.booleans()):
            self.cluster.finish_first_stage(KINDS[name], name)
        self.quota_changes(refusing=False)
        self.left_behind: Reconciler | None = None
        self.restart()
        for _ in range(data.draw(st.sampled_from([0, 1, 2, 2]))):
            self.all_works()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    # the operator

    @rule()
    def restart(self) -> None:
        """It dies and comes back with the cluster as it is and nothing else."""
        self.cluster.fault = (0, "none")
        self.cache = Cache(referenced_keys)
        self.reconciler = self.new_reconciler(self.cache)
        for stream in self.cluster.events.values():
            stream.clear()
        resync = Resync(
            cast("Cluster", self.cluster),
            self.cache,
            namespaces=[],
            check_crds=self.crd_check.check,
            report=self.metrics.resynced,
            wake=self.wake,
        )
        self.do(resync.load())
        self.due = dict.fromkeys(self.cache.all_keys(), self.now)

    def new_reconciler(self, cache: Cache) -> Reconciler:
        return Reconciler(
            cast("Cluster", self.cluster),
            cache,
            Settings(),
            metrics=self.metrics,
            crd_check=self.crd_check,
            now=lambda: self.now,
            wake=self.wake,
        )

    def wake(self, key: Key) -> None:
        self.due[key] = self.now

    @rule()
    def split_brain(self) -> None:
        """It is replaced, but lives on with what it knows."""
        self.left_behind = self.reconciler
        self.restart()

    @precondition(lambda self: self.left_behind and self.known())
    @rule(data=st.data())
    def the_one_left_behind_looks(self, data: st.DataObject) -> None:
        self.pass_over(self.one_known(data), self.left_behind)

    def known(self) -> list[str]:
        """Resources that are there, or that the operator believes to be there."""
        return sorted({*self.cluster.runs(), *(key.name for key in self.cache.all_keys())})

    def one_known(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self.known()))

    @rule(stream=st.sampled_from(["runs", "jobs"]), most=st.integers(1, 9))
    def hear(self, stream: str, most: int) -> None:
        """A watch tells some of what has happened; those of runs and Jobs know nothing of each other."""
        events = self.cluster.events[stream]
        for _ in range(min(most, len(events))):
            if stream == "runs":
                for key in on_run_event(self.cache, events.popleft()):
                    self.wake(key)
            elif owner := on_job_event(self.cache, events.popleft()):
                self.wake(owner)

    @precondition(lambda self: self.known())
    @rule(data=st.data(), fault=faults, writes=st.integers(0, 2))
    def look(self, data: st.DataObject, fault: Fault, writes: int) -> None:
        """A pass over one resource, with whatever the watches have told by now."""
        self.cluster.fault = (writes, fault)
        try:
            self.pass_over(self.one_known(data))
        except CrashError:
            self.restart()
        finally:
            self.cluster.fault = (0, "none")

    def pass_over(self, name: str, reconciler: Reconciler | None = None) -> float | None:
        key, again = Key(KINDS[name], NAMESPACE, name), backoff.RECONCILE.longest_seconds
        if not reconciler:
            self.due.pop(key, None)
        with suppress(OperatorError):
            again = self.do((reconciler or self.reconciler)(key))
        if not reconciler and again is not None:
            self.due[key] = min(
                self.now + timedelta(seconds=again), self.due.get(key, datetime.max.replace(tzinfo=UTC))
            )
        return again

    @precondition(lambda self: self.known())
    @rule(data=st.data())
    def look_until_content(self, data: st.DataObject) -> None:
        """Without news it soon has nothing left to write."""
        name = self.one_known(data)
        for _ in range(MOST_PASSES_ALONE):
            before = len(self.cluster.writes)
            again = self.pass_over(name)
            if len(self.cluster.writes) == before and again != 0.0:
                return
        raise AssertionError(f"writes although nothing has happened: {self.cluster.writes[-8:]}")

    @rule()
    def all_works(self) -> None:
        """A moment in which everything does what it should."""
        self.cluster.play_job_controller()
        for stream, events in self.cluster.events.items():
            self.hear(stream, len(events))
        for name in self.cluster.runs():
            self.pass_over(name)
        self.cluster.play_job_controller()

    @rule(outcome=outcomes)
    def all_works_until_jobs_end(self, outcome: Outcome) -> None:
        """What an attempt comes to when nothing disturbs it."""
        for _ in range(3):
            self.all_works()
        for name in self.working():
            self.cluster.end(name, outcome)

    # users

    @precondition(lambda self: len(self.cluster.runs()) < len(KINDS))
    @rule(data=st.data(), spec=specs)
    def apply(self, data: st.DataObject, spec: dict[str, Any]) -> None:
        name = data.draw(st.sampled_from([name for name in KINDS if name not in self.cluster.runs()]))
        self.cluster.add(manifest(KINDS[name], name, **spec))

    @precondition(lambda self: self.cluster.runs())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.cluster.runs())))
        self.cluster.remove(KINDS[name], name)

    @precondition(lambda self: self.unfinished())
    @rule(data=st.data(), budget=st.sampled_from([1, 4]))
    def change_the_budget(self, data: st.DataObject, budget: int) -> None:
        self.edit(data.draw(st.sampled_from(self.unfinished())), retry={"maxAttempts": budget, "backoff": "30s"})

    @precondition(lambda self: self.unfinished())
    @rule(data=st.data())
    def suspend_or_resume(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.unfinished()))
        self.edit(name, suspend=not self.cluster.runs()[name]["spec"].get("suspend"))

    @precondition(lambda self: "model" in self.unfinished())
    @rule(nodes=st.sampled_from([1, 2, 2, 3, 99]))
    def resize(self, nodes: int) -> None:
        self.edit("model", parallelism={"nodes": nodes})

    @precondition(lambda self: "model" in self.unfinished())
    @rule(nodes=st.sampled_from([1, 3]))
    def resize_at_work(self, nodes: int) -> None:
        """A new size for pods that run; the drawn events alone do not reach this in every course of random choices."""
        for _ in range(3):
            self.all_works()
        self.resize(nodes)
        self.all_works()

    def unfinished(self) -> list[str]:
        return [name for name, run in self.cluster.runs().items() if "completionTime" not in run.get("status", {})]

    def edit(self, name: str, **change: Any) -> None:
        run = self.cluster.runs()[name]
        metadata = {**run["metadata"], "generation": run["metadata"]["generation"] + 1}
        self.cluster.put({**run, "metadata": metadata, "spec": {**run["spec"], **change}})

    @precondition(lambda self: self.cluster.of("Job"))
    @rule(data=st.data(), foreground=st.booleans())
    def delete_job(self, data: st.DataObject, foreground: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.cluster.of("Job"))))
        self.cluster.delete_by_hand(name, foreground=foreground)

    # the other controllers and the nodes

    @rule(which=st.sampled_from(["play_job_controller", "play_kubelet", "play_kubelet", "play_garbage_collector"]))
    def others_work(self, which: str) -> None:
        getattr(self.cluster, which)()

    @precondition(lambda self: self.working())
    @rule(data=st.data(), outcome=outcomes)
    def job_ends(self, data: st.DataObject, outcome: Outcome) -> None:
        self.cluster.end(data.draw(st.sampled_from(self.working())), outcome)

    def working(self) -> list[str]:
        return [name for name, job in self.cluster.of("Job").items() if job.get("status", {}).get("ready")]

    @precondition(lambda self: self.queued())
    @rule(data=st.data())
    def queue_decides(self, data: st.DataObject) -> None:
        """A queue admits a Job, or takes its admission back."""
        job = self.cluster.of("Job")[data.draw(st.sampled_from(self.queued()))]
        self.cluster.put({**job, "spec": {**job["spec"], "suspend": not job["spec"].get("suspend")}})

    def queued(self) -> list[str]:
        jobs = self.cluster.of("Job").items()
        return [
            n for n, j in jobs if QUEUE_LABEL in j["metadata"]["labels"] and "conditions" not in j.get("status", {})
        ]

    @precondition(lambda self: self.cluster.running_pods())
    @rule(data=st.data())
    def pod_is_evicted(self, data: st.DataObject) -> None:
        pods = self.cluster.running_pods()
        self.cluster.evict(pods[data.draw(st.sampled_from(sorted(pods)))])

    @rule(refusing=st.booleans())
    def quota_changes(self, refusing: bool) -> None:
        def refuse(verb: str, target: Manifest) -> ApiError | None:
            refused = refusing and verb == "create" and target["kind"] == "Job"
            return RefusedError("POST", "exceeded quota: jobs", 403) if refused else None

        self.refusing, self.cluster.refuse = refusing, refuse

    @rule(seconds=st.sampled_from([1, 40, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.cluster.clock = rfc3339(self.now)

    # what must be true

    @invariant()
    def every_attempt_is_one_job(self) -> None:
        for name, run in self.cluster.runs().items():
            for stage in run.get("status", {}).get("stages", []):
                self.reached.add(stage["state"])
                made = {
                    n for n in self.cluster.created[run["metadata"]["uid"]] if n.startswith(f"{name}-{stage['name']}-")
                }
                counted = {f"{name}-{stage['name']}-a{n}" for n in range(1, stage["attempt"] + 1)}
                newest = {stage.get("job")}
                assert made <= counted, "a Job that is not counted"
                assert counted - made <= newest, "an attempt without Job"

    def settle(self) -> None:
        """The others work, the watches tell all, and the operator looks at what it was told of or wanted to see again.

        It is given time to look again twice: that a pod has ended, or a quota was raised, nobody tells it.
        """
        pauses = 2
        for _ in range(MOST_PASSES):
            self.cluster.play_garbage_collector()
            self.cluster.play_job_controller()
            self.cluster.play_kubelet()
            for stream, events in self.cluster.events.items():
                self.hear(stream, len(events))
            due = [key for key, at in self.due.items() if at <= self.now]
            for key in due:
                self.pass_over(key.name)
            if not due and not pauses:
                return
            if not due:
                pauses -= 1
                self.time_passes(round(backoff.RECONCILE.longest_seconds))
        raise AssertionError(f"it never settles: {self.cluster.writes[-8:]}")

    @rule()
    def all_is_quiet(self) -> None:
        """Then the status says what is."""
        self.settle()
        for name, run in self.cluster.runs().items():
            wrong = contradiction(run, self.cluster, rfc3339(self.now), refusing=self.refusing)
            assert wrong is None, f"{name}: {wrong}: {run.get('status')}"

    def teardown(self) -> None:
        """From wherever it has come, all ends once nothing is in the way."""
        if sys.exc_info()[0] is not None:
            return
        self.quota_changes(refusing=False)
        for name in self.unfinished():
            self.edit(name, suspend=False, **({"parallelism": {"nodes": 2}} if name == "model" else {}))
        for _ in range(MOST_PASSES):
            self.settle()
            runs = self.cluster.runs()
            if all(is_over(run, runs) for run in runs.values()):
                return
            self.time_passes(1000)
            self.help_all_jobs()
        raise AssertionError({name: run.get("status") for name, run in self.cluster.runs().items()})

    def help_all_jobs(self) -> None:
        for name, job in self.cluster.of("Job").items():
            if job["spec"].get("suspend") and QUEUE_LABEL in job["metadata"]["labels"]:
                self.cluster.put({**job, "spec": {**job["spec"], "suspend": False}})
            elif job.get("status", {}).get("ready"):
                self.cluster.end(name, "done")


def current_stage(run: Manifest) -> Manifest:
    return next(stage for stage in run["status"]["stages"] if stage["state"] != "Succeeded")


def contradiction(run: Manifest, cluster: ModelCluster, now: str, *, refusing: bool) -> str | None:
    """What is wrong about a settled run's status."""
    status = run.get("status")
    if not status:
        return "nothing is said"
    if "completionTime" in status:
        return None if succeeded(run) in ("True", "False") else "ended without verdict"
    stage, is_held = current_stage(run), run["spec"].get("suspend", False)
    if not stage["attempt"]:
        return None if is_held or needs(run, cluster.runs()) else "everything is there, and nothing is begun"
    if stage["state"] == "Retrying":
        return (
            None
            if is_held or run["spec"].get("parallelism", {}).get("nodes", 1) > MOST_NODES or stage["retryAt"] > now
            else "the next attempt is due"
        )
    job = cluster.of("Job").get(stage["job"])
    nodes = run["spec"].get("parallelism", {}).get("nodes", 1)
    if job is None:
        expected = {"Suspended"} if is_held else {"Waiting"} if refusing else set()
        expected |= {"Resizing", "Suspended", "Waiting"} if nodes > MOST_NODES else set()
    elif not is_held and stage["name"] == "train" and job["spec"]["completions"] != nodes <= MOST_NODES:
        return "the Job has another size than wanted"
    elif "conditions" in job["status"]:
        return "the Job has ended"
    else:
        expected = expected_states(job, is_held=is_held)
    return None if stage["state"] in expected else f"expected {expected}"


def expected_states(job: Manifest, *, is_held: bool) -> set[str]:
    if is_held:
        return {"Suspended"} if job["spec"].get("suspend") else {"a suspended Job"}
    if job["spec"].get("suspend"):
        return {"Waiting", "Pending"} if QUEUE_LABEL in job["metadata"]["labels"] else {"a Job at work"}
    return {"Running"} if job["status"]["ready"] == job["spec"]["completions"] else {"a complete gang"}


def succeeded(run: Manifest) -> str:
    conditions = run.get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == ConditionType.SUCCEEDED), "")


def needs(run: Manifest, runs: dict[str, Manifest]) -> list[str]:
    """Names of the resources that a run waits for."""
    spec = parse_run(run).spec
    assert spec
    return [need.name for need in references(run["kind"], spec) if succeeded(runs.get(need.name, {})) != "True"]


def is_over(run: Manifest, runs: dict[str, Manifest]) -> bool:
    """Whether nothing more can come of a run: it has ended, or it has not begun and what it waits for never comes."""
    if "completionTime" in run["status"]:
        return True
    lacks = needs(run, runs)
    return not current_stage(run)["attempt"] and any(name not in runs or is_over(runs[name], runs) for name in lacks)


@pytest.fixture(scope="module", autouse=True)
def runner() -> Iterator[None]:
    """One event loop for all passes, no log, and definitions that are never compared: all three would take long."""
    logging.disable(logging.ERROR)
    with asyncio.Runner() as Operator.runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(CrdCheck, "check", all_well)
        yield
    logging.disable(logging.NOTSET)


async def all_well(_: CrdCheck) -> None:
    """Nothing is outdated."""


def test_every_course_of_events_keeps_all_promises() -> None:
    Operator.reached.clear()
    run_state_machine_as_test(Operator, settings=COURSES)
    assert Operator.reached == set(get_args(StageState)), "the courses do not get everywhere"


def act_before_the_intent_is_written(patch: pytest.MonkeyPatch) -> None:
    async def one_pass(self: Reconciler, key: Key) -> float | None:
        run = self._cache.get(key)
        if run is None:
            return None
        decided = plan(run, await self._observe(run), self._settings)
        await self._change_children(run, decided)
        await self._write_status(run, decided.status)
        return decided.requeue_after

    patch.setattr(Reconciler, "_reconcile", one_pass)


def derive_the_end_from_the_jobs(patch: pytest.MonkeyPatch) -> None:
    def forgetful(run: Run, *args: Any) -> Any:
        if run.status.completion_time:
            last = run.status.stages[-1].model_copy(update={"state": "Pending"})
            run = with_status(run, completion_time=None, stages=[*run.status.stages[:-1], last])
        return plan(run, *args)

    patch.setattr(reconcile, "plan", forgetful)


def retry_without_budget(patch: pytest.MonkeyPatch) -> None:
    def generous(run: Run, *args: Any) -> Any:
        retry = Retry(max_attempts=20, backoff="30s")
        return plan(replace(run, spec=run.spec.model_copy(update={"retry": retry})) if run.spec else run, *args)

    patch.setattr(reconcile, "plan", generous)


def say_the_time_in_every_status(patch: pytest.MonkeyPatch) -> None:
    count = itertools.count()

    def restless(run: Run, *args: Any) -> Any:
        decided = plan(run, *args)
        return replace(decided, status=decided.status.model_copy(update={"current_stage": f"at {next(count)}"}))

    patch.setattr(reconcile, "plan", restless)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (act_before_the_intent_is_written, "before the status names it"),
        (derive_the_end_from_the_jobs, "latched"),
        (retry_without_budget, "beyond the budget"),
        (say_the_time_in_every_status, "nothing has happened|never settles"),
    ],
)
def test_a_broken_operator_is_found_out(
    broken: Callable[[pytest.MonkeyPatch], None], promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError, match=promise):
        run_state_machine_as_test(Operator, settings=settings(COURSES, phases=[Phase.generate]))
