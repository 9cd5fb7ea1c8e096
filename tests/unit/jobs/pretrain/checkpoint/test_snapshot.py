"""One snapshot format for every family, for DDP and FSDP, that transformers loads as a model."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from transformers import (
    BertConfig,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from hatchery_api.conditions import Reason
from hatchery_jobs.pretrain.checkpoint.snapshot import (
    Leaves,
    TrainingSnapshot,
    contribute_shards,
    restore_snapshot,
    take_snapshot,
)
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.checkpoint.writer import Buffers
from hatchery_jobs.pretrain.state import RunState
from hatchery_jobs.runtime.errors import SpecError

GPT2 = {"vocab_size": 20, "n_positions": 8, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
LLAMA = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
FAMILIES = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, n_embd=8, n_layer=1)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=20, **LLAMA)),
    "llama-tied": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=20, tie_word_embeddings=True, **LLAMA)),
    "bert": lambda: BertForPreTraining(BertConfig(vocab_size=20, max_position_embeddings=8, **LLAMA)),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ),
}
ROWS = torch.tensor([[1, 2, 3, 4]])


def optimizer_of(model):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others}], lr=0.01)


def update(model, optimizer):
    """One update whose gradient is made up of the weights: the same for every form of the same model."""
    for parameter in model.parameters():
        parameter.grad = parameter.detach().sin() + 0.1
    optimizer.step()
    optimizer.zero_grad()


def trained(family, seed=1, updates=2):
    torch.manual_seed(seed)
    model = FAMILIES[family]().eval()
    optimizer = optimizer_of(model)
    for _ in range(updates):
        update(model, optimizer)
    return model, optimizer


def same(one, other):
    def in_order(snapshot):
        return TrainingSnapshot(dict(sorted(snapshot.weights.items())), snapshot.optimizer)

    assert one.weights.keys() == other.weights.keys()
    pairs = list(zip(*(Leaves.of(in_order(snapshot)).tensors() for snapshot in (one, other)), strict=True))
    return bool(pairs) and all(torch.equal(a, b) for a, b in pairs)


def logits(model, **more):
    if isinstance(model, T5ForConditionalGeneration):
        more["decoder_input_ids"] = ROWS
    return model(input_ids=ROWS, **more)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_are_what_transformers_saves_and_loads(family, tmp_path):
    model, optimizer = trained(family)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        theirs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    ours = take_snapshot(model, optimizer).weights
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    save_file(ours, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(logits(loaded.eval()), logits(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_goes_on_from_a_snapshot_as_if_it_had_never_stopped(family):
    model, optimizer = trained(family)
    snapshot = copy.deepcopy(take_snapshot(model, optimizer))
    before = copy.deepcopy(snapshot)
    other, other_optimizer = trained(family, seed=2, updates=1)
    restore_snapshot(snapshot, other, other_optimizer)
    for _ in range(2):
        update(model, optimizer)
        update(other, other_optimizer)
    assert same(take_snapshot(model, optimizer), take_snapshot(other, other_optimizer))
    assert same(snapshot, before)  # what was applied is a copy


def test_shared_weights_stay_shared():
    model, optimizer = trained("gpt2")
    restore_snapshot(copy.deepcopy(take_snapshot(*trained("gpt2", seed=2))), model, optimizer)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_before_the_first_update_the_optimizer_stays_untouched():
    model, optimizer = trained("gpt2", updates=0)
    snapshot = take_snapshot(model, optimizer)
    assert snapshot.optimizer == {}
    assert not optimizer.state
    other, other_optimizer = trained("gpt2", seed=2, updates=0)
    restore_snapshot(copy.deepcopy(snapshot), other, other_optimizer)
    update(model, optimizer)
    update(other, other_optimizer)
    assert same(take_snapshot(model, optimizer), take_snapshot(other, other_optimizer))


def test_another_model_is_refused_with_the_first_difference():
    snapshot = copy.deepcopy(take_snapshot(*trained("gpt2")))
    model = GPT2LMHeadModel(GPT2Config(**GPT2, n_embd=16, n_layer=2))
    with pytest.raises(SpecError, match=r"transformer.h.0.attn.c_attn.bias has shape \(24,\).* \(48,\)") as caught:
        restore_snapshot(snapshot, model, optimizer_of(model))
    assert caught.value.reason == Reason.INVALID_SPEC
    assert "spec.checkpoint.resumeFrom" in caught.value.message


@pytest.fixture
def alone():
    """A process group of one worker."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def sharded(seed, updates):
    torch.manual_seed(seed)
    model = FAMILIES["gpt2"]().eval()
    for block in model.transformer.h:
        fully_shard(block, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    optimizer = optimizer_of(model)
    for _ in range(updates):
        update(model, optimizer)
    return model, optimizer


def test_fsdp_and_ddp_read_each_others_snapshots(alone):
    plain_model, plain_optimizer = trained("gpt2")
    parts = take_snapshot(*sharded(seed=1, updates=2))
    contribute_shards(parts)
    snapshot = Buffers().copy(parts)
    assert same(snapshot, take_snapshot(plain_model, plain_optimizer))
    assert snapshot.weights.keys() == take_snapshot(plain_model, plain_optimizer).weights.keys()
    model, optimizer = sharded(seed=2, updates=1)
    restore_snapshot(snapshot, model, optimizer)
    update(model, optimizer)
    update(plain_model, plain_optimizer)
    assert same(Buffers().copy(take_snapshot(model, optimizer)), take_snapshot(plain_model, plain_optimizer))


TWO_WORKERS = """
import os, sys
from pathlib import Path
import torch
from torch.distributed.fsdp import fully_shard
from hatchery_jobs.pretrain.checkpoint.store import Checkpoints
from hatchery_jobs.pretrain.checkpoint.writer import CheckpointWriter
from hatchery_jobs.pretrain.checkpoint.snapshot import contribute_shards, restore_snapshot, take_snapshot
from hatchery_jobs.pretrain.state import RunState

sys.path.insert(0, sys.argv[1])
import test_snapshot as t

LEAD, folder = 1, Path(sys.argv[2])
rank = 0 if (child := os.fork()) else 1
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
torch.manual_seed(9)
model = t.FAMILIES["gpt2"]().eval()
mesh = torch.distributed.init_device_mesh("cpu", (2,))
for block in model.transformer.h:
    fully_shard(block, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = t.optimizer_of(model)
restore_snapshot(Checkpoints(folder, 2).load(2), model, optimizer)
t.update(model, optimizer)
snapshot = take_snapshot(model, optimizer)
if rank == LEAD:
    writer = CheckpointWriter(Checkpoints(folder, 2), lambda *_: None, lambda *_: None)
    writer.save(RunState(step=3), snapshot)
    writer.finish()
    writer.close()
else:
    contribute_shards(snapshot)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
if rank:
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1] != 0)
"""


def test_two_workers_of_fsdp_go_on_from_one_of_ddp_and_back(tmp_path):
    """The lead is not the first worker: torchrun may give it any rank."""
    model, optimizer = trained("gpt2")
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(RunState(step=2), Buffers().copy(take_snapshot(model, optimizer)))
    command = [sys.executable, "-c", TWO_WORKERS, str(Path(__file__).parent), str(tmp_path)]
    subprocess.run(command, env=os.environ, check=True, timeout=240)
    assert checkpoints.newest() == RunState(step=3)
    update(model, optimizer)
    assert same(checkpoints.load(3), take_snapshot(model, optimizer))
