"""The training loop in this process: bit-exactness, interruption, and an independent loop to compare with."""

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.support.jobs.training_loop import train

from hatchery_api import __version__
from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.data.sampler import SequenceOrder
from hatchery_jobs.pretrain.data.token_store import TokenStore
from hatchery_jobs.pretrain.distributed.process_group import ProcessGroup
from hatchery_jobs.pretrain.launcher import cgroup
from hatchery_jobs.pretrain.launcher.protocol import CHECKPOINTS, Flag
from hatchery_jobs.pretrain.record.curve import CURVE, read_curve
from hatchery_jobs.pretrain.training import loop, setup
from hatchery_jobs.runtime.errors import SpecError
from hatchery_jobs.runtime.progress import REGISTRY


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def outcome(worker):
    return (worker.folder / CURVE).read_bytes(), (worker.folder / "model.safetensors").read_bytes()


def test_two_runs_are_identical_to_the_last_bit(make_worker):
    one, two = make_worker("one"), make_worker("two")
    first, second = train(one).result, train(two).result
    assert outcome(one) == outcome(two)
    assert first.loss == second.loss
    steps = [line["step"] for line in read_curve(one.folder / CURVE) if "loss" in line]
    assert steps == list(range(1, 13))


@pytest.mark.parametrize("question", [1, 12, 15, 20, 27, 40, 56])
def test_interrupted_anywhere_it_goes_on_as_if_nothing_had_been(make_worker, monkeypatch, question):
    whole, broken = make_worker("whole"), make_worker("broken")
    train(whole)
    asked = 0

    def stop_requested(self):
        nonlocal asked
        asked += 1
        return asked == question

    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "stop_requested", stop_requested)
        ended = train(broken)
    assert ended.state == "interrupted"
    step = ended.result.step
    assert ended.result.last_checkpoint.step == step
    again = train(broken)
    assert again.state == "done"
    assert again.result.resumed_from == [step]
    assert outcome(broken) == outcome(whole)


def test_resumed_twice_and_after_a_torn_checkpoint(make_worker, monkeypatch):
    whole, broken = make_worker("whole"), make_worker("broken")
    train(whole)
    asked = 0

    def stop_requested(self):
        nonlocal asked
        asked += 1
        return asked in {32, 45}

    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "stop_requested", stop_requested)
        steps = [train(broken).result.step for _ in range(2)]
    newest = max((broken.folder / CHECKPOINTS).iterdir())
    (newest / "optimizer.pt").write_bytes(b"")
    resumed = train(broken).result.resumed_from
    assert resumed[-1] < steps[-1]
    assert outcome(broken) == outcome(whole)


def test_across_epochs_and_restarts_every_row_is_read_once_in_each(make_worker, monkeypatch):
    rows, read, asked = TokenStore.rows, [], 0

    def recorded(self, split, numbers, **options):
        if split == "train":
            read.extend(np.asarray(numbers).tolist())
        return rows(self, split, numbers, **options)

    def stop_requested(self):
        nonlocal asked
        asked += 1
        return asked in {5, 11}

    monkeypatch.setattr(TokenStore, "rows", recorded)
    whole, broken = (make_worker(name, batch={"sequences": 64, "perDevice": 32}) for name in ("whole", "broken"))
    train(whole)
    undisturbed = read.copy()
    read.clear()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "stop_requested", stop_requested)
        steps = [train(broken).result.step for _ in range(2)]
    assert 0 < steps[0] < steps[1] < train(broken).result.step
    assert read == undisturbed
    assert outcome(broken) == outcome(whole)
    size = TokenStore(broken.tokens, 32).sequences("train")
    epochs = [read[begin : begin + size] for begin in range(0, len(read), size)]
    assert len(epochs) > 2
    assert size % 64 > 0  # they begin in the middle of an update
    for epoch in epochs[:-1]:
        assert sorted(epoch) == list(range(size))
    assert epochs[0] != epochs[1]


def test_the_launchers_sign_stops_it(make_worker):
    worker = make_worker("run")
    worker.flag(Flag.STOP).touch()
    assert train(worker).state == "interrupted"
    assert Checkpoints(worker.folder / CHECKPOINTS, 2).newest().step == 0


def test_dropout_too_is_resumed_exactly(make_worker, monkeypatch):
    changes = {"model": {"overrides": {"layers": 1, "heads": 2, "hiddenSize": 32, "dropout": 0.2}}}
    whole, broken = make_worker("whole", **changes), make_worker("broken", **changes)
    train(whole)
    asked = 0

    def stop_requested(self):
        nonlocal asked
        asked += 1
        return asked == 42

    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "stop_requested", stop_requested)
        train(broken)
    torch.manual_seed(12345)
    train(broken)
    assert outcome(broken) == outcome(whole)


def test_it_agrees_with_an_independent_loop(make_worker):
    worker = make_worker(
        "run", batch={"sequences": 4, "perDevice": 4}, schedule={"steps": 40, "warmupSteps": 4, "peakLr": 3e-3}
    )
    train(worker)
    ours = [line for line in read_curve(worker.folder / CURVE) if "loss" in line]
    reference = plain_loop(worker, steps=40, warmup=4, peak=3e-3)
    assert ours[0]["loss"] == pytest.approx(reference[0][0], abs=1e-6)
    for line, (loss, norm, rate) in zip(ours, reference, strict=True):
        assert line["loss"] == pytest.approx(loss, abs=1e-5)
        assert line["gradient_norm"] == pytest.approx(norm, rel=1e-4)
        assert line["learning_rate"] == pytest.approx(rate, rel=1e-9)


def plain_loop(worker, steps, warmup, peak):
    """Plain torch and a model written out by the library's defaults: no Accelerate, no shards, no order of ours."""
    from transformers import GPT2Config, GPT2LMHeadModel

    index = json.loads((worker.tokens / "index.json").read_text())
    [shard] = worker.tokens.rglob("*train*.tokens")
    tokens = torch.from_numpy(np.fromfile(shard, index["dtype"]).astype(np.int64))
    torch.manual_seed(1)
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2}
    none = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
    spread = math.sqrt(2 / (5 * 32))
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=index["vocabSize"], initializer_range=spread, **sizes, **none)
    ).train()
    for position, row in enumerate(model.transformer.wpe.weight.data):
        for wave in range(16):
            angle = position / 10_000 ** (wave / 16)
            row[wave], row[16 + wave] = math.sin(angle) * math.sqrt(2) * spread, math.cos(angle) * math.sqrt(2) * spread
    vectors = [p for p in model.parameters() if p.dim() == 1]
    matrices = [p for p in model.parameters() if p.dim() != 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
    order_of = SequenceOrder(1, (len(tokens) - 1) // 32)
    lines = []
    for step in range(steps):
        starts = [int(n) * 32 for n in order_of(range(step * 4, step * 4 + 4))]
        inputs = torch.stack([tokens[s : s + 32] for s in starts])
        targets = torch.stack([tokens[s + 1 : s + 33] for s in starts])
        logits = model(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = (step + 1 - warmup) / (steps - warmup)
        falling = 3e-4 + (peak - 3e-4) * (1 + math.cos(math.pi * share)) / 2
        rate = peak * (step + 1) / warmup if step < warmup else falling
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        lines.append((loss.item(), norm.item(), rate))
    return lines


def test_the_size_of_a_micro_batch_hardly_matters(make_worker):
    curves = []
    for rows in (1, 4):
        worker = make_worker(f"rows{rows}", batch={"sequences": 4, "perDevice": rows})
        train(worker)
        curves.append([line["loss"] for line in read_curve(worker.folder / CURVE) if "loss" in line])
    assert curves[0][0] == pytest.approx(curves[1][0], abs=1e-6)
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_an_attempt_after_a_kill_for_memory_goes_on_with_half_the_rows_and_the_same_batch(make_worker, monkeypatch):
    whole, killed = make_worker("whole"), make_worker("killed")
    tokens = train(whole).result.tokens
    with monkeypatch.context() as patch:
        patch.setattr(
            ProcessGroup,
            "stop_requested",
            lambda group: Checkpoints(group.worker.folder / CHECKPOINTS, 2).newest() is not None,
        )
        assert train(killed).result.micro_batch is None
    job = killed.job.model_copy(update={"attempt": 2, "earlier_failure": Reason.OUT_OF_MEMORY})
    done = train(killed.model_copy(update={"job": job})).result
    assert (done.micro_batch, done.tokens) == (1, tokens)
    losses = [[line["loss"] for line in read_curve(o.folder / CURVE) if "loss" in line] for o in (whole, killed)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_a_model_that_the_pod_cannot_hold_is_refused_before_it_is_made(make_worker, monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("100000\n")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "build_model", None)
    with pytest.raises(SpecError, match=r"take 0\.00 GB in each worker"):
        train(make_worker("large"))


def test_the_evaluation_is_the_mean_over_every_whole_sequence(make_worker):
    worker = make_worker("run", schedule={"steps": 1, "warmupSteps": 0, "peakLr": 1e-9, "minLr": 0.0})
    result = train(worker).result
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(worker.folder).eval()
    store = TokenStore(worker.tokens, 32)
    rows = torch.from_numpy(store.rows("validation", range(store.sequences("validation"))).tokens)
    with torch.no_grad():
        logits = model(rows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item()
    split = store.index.splits["validation"]
    assert result.loss.eval == pytest.approx(loss, abs=1e-5)
    assert result.perplexity == pytest.approx(math.exp(loss), rel=1e-5)
    assert result.bits_per_byte == pytest.approx(loss / math.log(2) * split.tokens / split.text_bytes, rel=1e-5)


def test_evaluation_can_be_limited_or_left_out(make_worker):
    calls = []
    for batches in (1, 0):
        worker = make_worker(f"batches{batches}", evaluate={"batches": batches})
        calls.append(train(worker).result)
    assert calls[0].loss.initial is not None
    assert calls[1].loss.initial is None
    assert calls[1].perplexity is None


def test_a_loss_that_is_no_number_ends_the_run_with_the_step(make_worker):
    worker = make_worker("hot", schedule={"steps": 12, "warmupSteps": 0, "peakLr": 1.0}, optimizer={"clipNorm": 1e30})
    with pytest.raises(SpecError, match=r"update \d+ of 12, batch \d+: loss nan") as e:
        poisoned(worker)
    assert e.value.reason == Reason.NON_FINITE_LOSS


def poisoned(worker):
    """Trains with one weight that is no number from update 3 on."""
    learn = loop.learn

    def poison(run):
        if run.state.step == 2:
            with torch.no_grad():
                run.model.transformer.ln_f.weight[0] = math.nan
        return learn(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learn", poison)
        return train(worker)


def test_a_few_rows_are_learnt_by_heart(make_worker, monkeypatch):
    monkeypatch.setattr(SequenceOrder, "__call__", lambda self, positions: np.asarray(positions) % 8)
    worker = make_worker("few", schedule={"steps": 200, "warmupSteps": 5, "peakLr": 1e-2}, evaluate={"batches": 0})
    assert train(worker).result.loss.train < 0.1


def test_prometheus_sees_the_run(make_worker):
    labels = {"namespace": "lab", "name": "run"}
    before, sequences = (
        REGISTRY.get_sample_value(f"hatchery_train_{n}_total", labels) or 0 for n in ("tokens", "samples")
    )
    result = train(make_worker("run")).result

    def value(name, **more):
        return REGISTRY.get_sample_value(name, labels | more)

    assert value("hatchery_train_loss", split="train") == result.loss.train
    assert value("hatchery_train_loss", split="validation") == result.loss.eval
    assert value("hatchery_train_step") == 12 == value("hatchery_train_target_steps")
    assert value("hatchery_train_tokens_total") - before == 12 * 4 * 32 == result.tokens
    assert value("hatchery_train_samples_total") - sequences == 12 * 4
    assert value("hatchery_train_checkpoint_step") == result.last_checkpoint.step
    assert value("hatchery_train_checkpoint_interval_steps") == 5
    assert value("hatchery_train_run_info", model="gpt2-tiny", precision="fp32", version=__version__) == 1
    assert value("hatchery_train_learning_rate") == pytest.approx(3e-4)
    assert value("hatchery_train_last_step_timestamp_seconds") > 1e9
    assert value("hatchery_train_checkpoint_last_success_timestamp_seconds") > 1e9


def test_fp16_needs_a_gpu(make_worker):
    with pytest.raises(SpecError, match="has no GPU"):
        train(make_worker("half", precision="fp16"))


def test_bf16_learns_nearly_the_same(make_worker):
    full = train(make_worker("full")).result.loss.eval
    half = train(make_worker("half", precision="bf16")).result.loss.eval
    assert half == pytest.approx(full, abs=0.05)
    assert half != full


def test_the_shares_of_all_workers_are_the_whole_batch(make_worker):
    class Alone:
        def __init__(self, rank, size):
            self.process_index, self.num_processes = rank, size

    group = ProcessGroup(Alone(0, 1), make_worker("run"), 0)
    for size in (1, 2, 3, 5, 8):
        shares = [list(replace(group, accelerator=Alone(rank, size)).share(8)) for rank in range(size)]
        assert sorted(n for share in shares for n in share) == list(range(8))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_lead_writes_the_model_whatever_rank_torchrun_gives_it(make_worker, tmp_path):
    lead, alone = make_worker("lead"), make_worker("alone")
    other = lead.model_copy(update={"first_node": False, "local_folder": tmp_path / "other-local"})
    other.local_folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def start(worker, rank):
        path = worker.local_folder / "worker.json"
        path.write_text(worker.model_dump_json(by_alias=True))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        ranks = {"RANK": str(rank), "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "hatchery_jobs.pretrain.training.loop", str(path)]
        return subprocess.Popen(command, env={**os.environ, **meeting, **ranks})

    processes = [start(other, 0), start(lead, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert (lead.folder / "config.json").is_file()
    train(alone)
    assert outcome(lead) == outcome(alone)


@pytest.mark.parametrize(
    ("error", "first", "raises_limit"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "CUDA out of memory", False),
        (MemoryError(), "out of memory; raise spec.placement.resources.limits.memory", True),
    ],
)
def test_too_little_memory_points_at_the_device_or_at_the_host(error, first, raises_limit):
    failure = loop.classify_error(error)
    assert failure.reason == Reason.OUT_OF_MEMORY
    assert failure.message.startswith(first)
    assert "spec.batch.perDevice" in failure.message
    assert ("limits.memory" in failure.message) == raises_limit


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at it where the loss leaves the output layer
def test_a_compiled_run_learns_the_same(make_worker, monkeypatch):
    """Traced as ever, but run by torch's own operators: no C compiler is needed."""
    compiled = []

    def traced(model):
        compiled.append(torch._dynamo.optimize("eager")(model))
        return compiled[-1]

    monkeypatch.setattr(torch, "compile", traced)
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    curves = []
    for wanted in ("always", "never"):
        worker = make_worker(wanted, compile=wanted)
        train(worker)
        curves.append([line["loss"] for line in read_curve(worker.folder / CURVE) if "loss" in line])
    assert len(compiled) == 1
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert curves[0] == pytest.approx(curves[1], abs=1e-6)
