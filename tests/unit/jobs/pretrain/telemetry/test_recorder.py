"""The lead's record of a run: curve, timeline, metrics, samples, log."""

import json
from types import SimpleNamespace

import pytest

from hatchery_api.conditions import Reason
from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.launcher.protocol import WorkerSpec
from hatchery_jobs.pretrain.record import (
    CURVE,
    SAMPLES,
    TIMELINE,
    Sample,
    read_curve,
    read_samples,
    read_timeline,
    restarts,
)
from hatchery_jobs.pretrain.state import RunState, Times, Update, goodput
from hatchery_jobs.pretrain.telemetry import recorder as record
from hatchery_jobs.pretrain.telemetry.hardware import Device, RunInfo
from hatchery_jobs.pretrain.telemetry.metrics import LabelledMetric, Metric, RunMetrics
from hatchery_jobs.pretrain.telemetry.recorder import LeadRecorder, NullRecorder, log_file, open_log
from hatchery_jobs.runtime import logs
from hatchery_jobs.runtime.errors import RetryableError
from hatchery_jobs.runtime.progress import REGISTRY

INFO = RunInfo(parameters=10, tokens_per_step=64, flops_per_token=60.0, workers=2, device=Device("cpu", 1e6))
TIMES = Times(data=0.25, compute=1.0, optimizer=0.5, total=2.0)
RUN = {"namespace": "lab", "name": "run"}


@pytest.fixture
def worker(tmp_path):
    for row in vars(RunMetrics).values():
        if isinstance(row, Metric | LabelledMetric):
            row.metric.clear()
    spec = {
        "corpora": [{"corpusRef": {"name": "texts"}}],
        "tokenizerRef": {"name": "words"},
        "schedule": {"steps": 4},
        "batch": {"sequences": 8, "perDevice": 2},
        "tracking": {"tensorboard": False},
    }
    job = JobInput[PretrainRunSpec](
        kind="PretrainRun", namespace="lab", name="run", uid="1", stage="train", attempt=1,
        spec=PretrainRunSpec.model_validate(spec), output=Output(root="/x"), hub=HubTarget(endpoint="http://localhost"),
    )  # fmt: skip
    return WorkerSpec(
        job=job,
        tokens=tmp_path,
        tokenizer=tmp_path,
        folder=tmp_path,
        local_folder=tmp_path,
        first_node=True,
        metrics_port=0,
    )


def learn(recorder, state, steps):
    """Updates from a state on, as the loop does them."""
    for step in range(state.step + 1, steps + 1):
        seconds = {"train_seconds": 2.0 * step, "wall_seconds": 4.0 * step}
        state = state.model_copy(update={"step": step, "train_loss": 5.0 - step, **seconds})
        update = Update(loss=5.0 - step, norm=0.5, rate=1e-3, targets=60, times=TIMES, stop=False)
        recorder.updated(state, update)
    return state


def value(name, **labels):
    return REGISTRY.get_sample_value(f"hatchery_train_{name}", {**RUN, **labels})


def test_time_is_split_into_phases_that_add_up(worker):
    with LeadRecorder(worker, RunState(), INFO) as recorder:
        learn(recorder, RunState(), 3)
    phases = {phase: value("phase_seconds_total", phase=phase) for phase in ("data", "compute", "optimizer", "other")}
    assert phases == {"data": 0.75, "compute": 3.0, "optimizer": 1.5, "other": 0.75}
    assert sum(phases.values()) == value("step_duration_seconds_sum") == 6.0
    assert value("data_wait_seconds_total") == phases["data"]


def test_speed_is_told_in_tokens_operations_and_shares(worker):
    with LeadRecorder(worker, RunState(), INFO) as recorder:
        assert value("goodput_ratio") is None
        assert value("model_flops_total") == 0
        learn(recorder, RunState(), 3)
    assert value("tokens_total") == 3 * 64
    assert value("targets_total") == 3 * 60
    assert value("samples_total") == 3 * 8
    assert value("model_flops_total") == 3 * 64 * 60
    assert value("peak_flops") == 2e6
    assert value("mfu_ratio") == pytest.approx(64 / 2.0 * 60 / 2e6)
    assert value("goodput_ratio") == 0.5
    assert value("workers") == 2
    assert value("device_memory_peak_bytes", state="allocated") is not None


def test_an_unknown_device_has_neither_peak_nor_utilization(worker):
    info = RunInfo(parameters=10, tokens_per_step=64, flops_per_token=60.0, workers=2, device=Device("X", None))
    with LeadRecorder(worker, RunState(), info) as recorder:
        learn(recorder, RunState(), 1)
    assert (value("peak_flops"), value("mfu_ratio")) == (None, None)
    assert value("model_flops_total") > 0


def test_goodput_counts_only_updates_that_were_kept():
    assert goodput(RunState()) is None
    assert goodput(RunState(train_seconds=30, wall_seconds=120)) == 0.25
    assert goodput(RunState(train_seconds=1.0000001, wall_seconds=1)) == 1.0  # two clocks


def test_checkpoints_and_pushes_are_counted_with_their_failures(worker):
    state = RunState(step=3)
    with LeadRecorder(worker, state, INFO) as recorder:
        assert value("checkpoint_failures_total") == 0
        assert value("hub_pushes_total", result="failure") == 0
        assert value("checkpoint_last_success_timestamp_seconds") is None
        recorder.checkpoint_failed(state, OSError("no space left on device"))
        recorder.saved(state, 1.5)
        recorder.pushed(state.step, ConnectionError("503"))
        recorder.pushed(state.step)
    assert value("checkpoint_failures_total") == 1
    assert value("checkpoint_step") == 3
    assert value("checkpoint_duration_seconds_sum") == 1.5
    assert value("checkpoint_last_success_timestamp_seconds") > 0
    assert [value("hub_pushes_total", result=result) for result in ("success", "failure")] == [1, 1]
    assert value("hub_step") == 3


def test_a_roll_back_cuts_the_curve_and_is_counted(worker):
    with LeadRecorder(worker, RunState(), INFO) as recorder:
        state = learn(recorder, RunState(), 2)
        state = state.model_copy(update={"curve_bytes": recorder.curve_bytes()})
        learn(recorder, state, 4)
        recorder.nonfinite_loss()
        recorder.intervened(state.model_copy(update={"rollbacks": 1}), "rollback", "nonFinite")
        assert value("step") == 2
        learn(recorder, state, 4)
    assert [line["step"] for line in read_curve(worker.folder / CURVE)] == [1, 2, 3, 4]
    assert value("interventions_total", action="rollback") == 1
    assert value("interventions_total", action="skip") == 0
    assert value("nonfinite_loss_total") == 1
    lines = read_timeline(worker.folder / "run" / TIMELINE)
    (line,) = [line for line in lines if line["event"] == "intervened"]
    assert (line["step"], line["to"], line["action"], line["reason"]) == (4, 2, "rollback", "nonFinite")
    assert [line["step"] for line in lines if line["event"] == "update"] == [1, 2, 3, 4, 3, 4]


def test_a_skip_leaves_the_curve_as_it_is(worker):
    with LeadRecorder(worker, RunState(), INFO) as recorder:
        state = learn(recorder, RunState(), 2)
        recorder.intervened(state, "skip", "lossSpike")
        learn(recorder, state, 3)
    assert [line["step"] for line in read_curve(worker.folder / CURVE)] == [1, 2, 3]
    assert value("interventions_total", action="skip") == 1


def test_a_measurement_without_bytes_has_none_anywhere(worker):
    state = RunState(step=2, eval_loss=3.0)
    with LeadRecorder(worker, state, INFO) as recorder:
        recorder.validated(state, None)
        assert value("bpb") is None
        recorder.validated(state, 1.25)
    assert value("loss", split="validation") == 3.0
    assert value("bpb") == 1.25
    assert read_curve(worker.folder / CURVE) == [
        {"step": 2, "eval_loss": 3.0},
        {"step": 2, "eval_loss": 3.0, "bits_per_byte": 1.25},
    ]


def test_texts_of_steps_that_come_again_are_written_again(worker):
    def sample(step, text):
        return Sample(step=step, prompt="p", text=text, tokens=1, ended=False)

    with LeadRecorder(worker, RunState(), INFO) as recorder:
        for step, text in ((0, "a"), (2, "b"), (4, "lost"), (2, "c")):
            recorder.sampled(RunState(step=step), [sample(step, text)])
    assert [(s.step, s.text) for s in read_samples(worker.folder / SAMPLES)] == [(0, "a"), (2, "c")]


def test_trackers_are_told_of_the_first_and_the_last_update_and_of_some_between(worker, monkeypatch):
    told = []
    seconds = iter([10.0, 10.1, 10.6, 10.7])
    with LeadRecorder(worker, RunState(), INFO) as recorder:
        recorder._trackers = Told(told)
        # of this module alone: threads of other fixtures ask for the time too
        monkeypatch.setattr(record, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
        learn(recorder, RunState(), 4)
    assert told == [1, 3, 4, "closed"]


class Told:
    """Trackers that remember the updates they were told of."""

    def __init__(self, told):
        self.told = told

    def log(self, step, numbers):
        assert numbers["steps"] == step
        self.told.append(step)

    def close(self):
        self.told.append("closed")


def test_ends_say_why(worker):
    with LeadRecorder(worker, RunState(), INFO) as recorder:
        state = learn(recorder, RunState(), 2)
    with pytest.raises(RetryableError), LeadRecorder(worker, state, INFO):
        raise RetryableError(Reason.STORAGE_ERROR, "the volume is gone")
    with pytest.raises(MemoryError), LeadRecorder(worker, state, INFO):
        raise MemoryError
    LeadRecorder(worker, state, INFO).__exit__(None, None, None)
    with LeadRecorder(worker, state, INFO) as recorder:
        learn(recorder, state, 4)
    lines = read_timeline(worker.folder / "run" / TIMELINE)
    assert restarts(lines) == [(2, "interrupted"), (2, "StorageError"), (2, "MemoryError"), (2, "interrupted")]
    assert (lines[-1]["event"], lines[-1]["cause"]) == ("ended", "done")


def test_every_worker_keeps_its_own_log_and_only_the_lead_speaks(worker, capsys):
    try:
        open_log(worker, 3, is_lead=False)
        learn(NullRecorder(), RunState(), 2)
        logs.log("training")
    finally:
        logs.to_file(None)
    assert capsys.readouterr().out == ""
    lines = [json.loads(line) for line in log_file(worker.folder, 3).read_text().splitlines()]
    assert [(line["event"], line.get("step")) for line in lines] == [("update", 1), ("update", 2), ("training", None)]
    assert lines[0]["compute"] == 1.0
