"""What trackers log, read back from their files."""

import json
import math
import os
import socket
import struct
import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hatchery_api.contract import HubTarget, JobInput, Output
from hatchery_api.resources.pretrain import PretrainRunSpec
from hatchery_jobs.pretrain.record import Sample
from hatchery_jobs.pretrain.state import RunState, Times, Update
from hatchery_jobs.pretrain.telemetry import trackers as tracking
from hatchery_jobs.pretrain.telemetry.hardware import Device, RunInfo
from hatchery_jobs.pretrain.telemetry.trackers import (
    TensorBoard,
    Trackers,
    open_trackers,
    update_values,
    validation_values,
)

INFO = RunInfo(parameters=10, tokens_per_step=64, flops_per_token=60.0, workers=2, device=Device("cpu", 1e6))
UPDATE = Update(
    loss=2.5, norm=0.5, rate=1e-3, targets=60, stop=False,
    times=Times(data=0.1, compute=0.2, optimizer=0.06, total=0.4),
)  # fmt: skip
BOOK = {"lr", "samples", "steps", "loss/train"}
"""Names of the well-known loop; with loss/eval and perplexity."""


def job(**tracker):
    spec = {
        "corpora": [{"corpusRef": {"name": "texts"}}],
        "tokenizerRef": {"name": "words"},
        "schedule": {"steps": 10},
        "tracking": tracker,
    }
    return JobInput[PretrainRunSpec](
        kind="PretrainRun", namespace="lab", name="run", uid="0a-1b", stage="train", attempt=1,
        spec=PretrainRunSpec.model_validate(spec), output=Output(root="/x"), hub=HubTarget(endpoint="http://localhost"),
    )  # fmt: skip


def test_an_update_has_the_names_of_the_book_and_numbers_that_add_up():
    numbers = update_values(RunState(step=3), UPDATE, INFO, samples_per_step=12)
    assert numbers.keys() > BOOK
    assert {name: numbers[name] for name in BOOK} == {"lr": 1e-3, "samples": 36, "steps": 3, "loss/train": 2.5}
    assert numbers["tokens_per_second"] == pytest.approx(64 / 0.4)
    assert numbers["mfu"] == pytest.approx(64 / 0.4 * 60 / (2 * 1e6))
    parts = ["data", "compute", "optimizer", "other"]
    assert sum(numbers[f"time/{part}"] for part in parts) == pytest.approx(numbers["time/step"])


def test_an_unknown_device_has_no_utilization():
    info = RunInfo(parameters=10, tokens_per_step=64, flops_per_token=60.0, workers=2, device=Device("X", None))
    assert "mfu" not in update_values(RunState(step=3), UPDATE, info, 12)


def test_a_measurement_has_the_names_of_the_book_and_a_perplexity_that_can_be_written():
    assert validation_values(2.0, None) == {"loss/eval": 2.0, "perplexity": pytest.approx(math.e**2)}
    assert validation_values(800.0, 1.5) == {"loss/eval": 800.0, "perplexity": math.exp(700), "bits_per_byte": 1.5}


def points(folder, name):
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path):
    first = TensorBoard(tmp_path, 0)
    for step in range(1, 6):
        first.log(step, {"loss/train": float(step)})
    first._writer.flush()  # and is killed
    second = TensorBoard(tmp_path, 3)
    for step in range(4, 7):
        second.log(step, {"loss/train": 10.0 * step})
    second.close()
    first.close()
    assert points(tmp_path, "loss/train") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0)]


def test_tensorboard_forgets_what_a_roll_back_undid(tmp_path):
    board = TensorBoard(tmp_path, 0)
    for step in range(1, 6):
        board.log(step, {"loss/train": float(step)})
    board.rewind(2)
    board.log(3, {"loss/train": 30.0})
    board.close()
    assert points(tmp_path, "loss/train") == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_run_that_died_before_its_first_checkpoint_measures_the_start_once(tmp_path):
    for value in (1.0, 2.0):
        board = TensorBoard(tmp_path, 0)
        board.log(0, {"loss/eval": value})
        board.close()
    assert points(tmp_path, "loss/eval") == [(0, 2.0)]


class Broken:
    """A tracker that fails at its second point."""

    def __init__(self):
        self.points = 0

    def log(self, step, numbers):
        self.points += 1
        if self.points == 2:
            raise OSError("no space left on device")

    def close(self):
        raise AssertionError("it was left out")


class Working:
    def __init__(self):
        self.steps, self.closed = [], False

    def log(self, step, numbers):
        self.steps.append(step)

    def close(self):
        self.closed = True


def test_a_tracker_that_fails_is_reported_once_and_the_others_go_on(capsys):
    working = Working()

    def unreachable():
        raise ConnectionError("server away")

    trackers = Trackers({"a": unreachable, "b": Broken, "c": lambda: working})
    for step in range(5):
        trackers.log(step, {"x": 1.0})
    trackers.close()
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["tracker"], line["error"]) for line in said] == [
        ("a", "server away"),
        ("b", "no space left on device"),
    ]
    assert (working.steps, working.closed) == ([0, 1, 2, 3, 4], True)


BLOCK_BYTES, HEADER_BYTES = 32768, 7


def records(path):
    """Payloads of a .wandb file: LevelDB's log format, blocks of records with crc, length and kind."""
    data, at, whole = path.read_bytes(), HEADER_BYTES, b""
    while at + HEADER_BYTES <= len(data):
        if BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES:
            at += BLOCK_BYTES - at % BLOCK_BYTES
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + HEADER_BYTES])
        whole += data[at + HEADER_BYTES : at + HEADER_BYTES + length]
        at += HEADER_BYTES + length
        if kind in {1, 4}:  # whole, or its last part
            yield whole
            whole = b""


def history(path):
    from wandb.proto import wandb_internal_pb2

    rows, run = [], None
    for payload in records(path):
        record = wandb_internal_pb2.Record.FromString(payload)
        if record.HasField("history"):
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            rows.append({name: json.loads(value) for name, value in items.items()})
        if record.HasField("run"):
            run = record.run
    return rows, run


@pytest.fixture
def nobody(monkeypatch):
    """A proxy that all traffic of the process would go through, and that remembers who called."""
    calls = []
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)
    over = threading.Event()

    def accept():
        while not over.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            calls.append(connection.recv(200))
            connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
    for name in ("NO_PROXY", "no_proxy", tracking.KEY):
        monkeypatch.delenv(name, raising=False)
    yield calls
    over.set()
    thread.join()
    server.close()


@pytest.fixture
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    before = set(os.environ)
    yield
    for name in set(os.environ) - before:
        del os.environ[name]


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_without_a_key_weights_and_biases_is_logged_to_files_and_calls_nobody(tmp_path, nobody, clean_environment):
    folder, cache = tmp_path / "run", tmp_path / "cache"
    trackers = open_trackers(job(tensorboard=False, wandb={"project": "code"}), INFO, RunState(), folder, cache)
    for step in (1, 2):
        trackers.log(step, {"loss/train": 1.0 / step, "steps": float(step)})
    trackers.log(2, validation_values(800.0, None))
    trackers.log_samples([Sample(step=3, prompt="def", text=" f()", tokens=2, ended=False)])
    trackers.close()
    (path,) = folder.glob("wandb/offline-run-*-0a-1b/run-0a-1b.wandb")
    rows, run = history(path)
    assert (run.run_id, run.project, run.display_name) == ("0a-1b", "code", "run")
    assert [(row["_step"], row["loss/train"]) for row in rows if "loss/train" in row] == [(1, 1.0), (2, 0.5)]
    assert [row["perplexity"] for row in rows if "perplexity" in row] == [math.exp(700)]
    assert [row["_step"] for row in rows if any(name.startswith("samples/texts") for name in row)] == [3]
    assert nobody == []
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert written <= {"run", "cache"}
    assert not list(folder.rglob("wandb-metadata.json")) + list(folder.rglob("requirements.txt"))


@pytest.fixture
def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_is_away_makes_the_run_offline(tmp_path, clean_environment, capsys, monkeypatch, unused_port):
    monkeypatch.setenv(tracking.KEY, "0" * 40)
    monkeypatch.setattr(tracking, "INIT_SECONDS", 1.0)
    there = {"project": "code", "baseUrl": f"http://127.0.0.1:{unused_port}"}
    folder = tmp_path / "run"
    trackers = open_trackers(job(tensorboard=False, wandb=there), INFO, RunState(), folder, tmp_path / "cache")
    trackers.log(1, {"loss/train": 1.0})
    trackers.close()
    (path,) = folder.glob("wandb/offline-run-*-0a-1b/run-0a-1b.wandb")
    assert [row["loss/train"] for row in history(path)[0]] == [1.0]
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines() if line[0] == "{"] == [
        "wandb-offline"
    ]
