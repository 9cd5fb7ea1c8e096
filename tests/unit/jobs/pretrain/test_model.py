"""The model and its optimizer."""

import math

import pytest
import torch

from hatchery_api.pretrain import Optimizer
from hatchery_jobs.pretrain.model import build_model
from hatchery_jobs.pretrain.optimizer import build_optimizer, parameter_groups
from hatchery_jobs.pretrain.shape import Shape

SHAPE = Shape(layers=2, heads=4, width=64, positions=32, vocab=256, dropout=0.0)


def test_only_matrices_decay():
    model = build_model(SHAPE, 0, seed=1)
    names = {id(p): n for n, p in model.named_parameters()}
    decay, rest = ({names[id(p)] for p in g["params"]} for g in parameter_groups(model, 0.1))
    blocks = [f"transformer.h.{n}." for n in range(2)]
    assert decay == {"transformer.wte.weight", "transformer.wpe.weight"} | {
        b + n + ".weight" for b in blocks for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    norms = {f"{b}ln_{n}.{w}" for b in blocks for n in (1, 2) for w in ("weight", "bias")}
    assert norms | {"transformer.ln_f.weight", "transformer.ln_f.bias"} <= rest
    assert all(n.endswith(".bias") for n in rest - norms - {"transformer.ln_f.weight"})
    assert decay | rest == set(names.values())


def test_decay_without_gradient_shrinks_matrices_alone():
    model = build_model(SHAPE, 0, seed=1)
    optimizer = build_optimizer(model, Optimizer(weight_decay=0.5), peak_lr=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        expected = before[name] * (0.95 if p.dim() > 1 else 1.0)
        assert torch.allclose(p, expected, atol=1e-7), name


def test_parameters_are_counted_before_torch_is_needed():
    assert sum(p.numel() for p in build_model(SHAPE, 0, seed=1).parameters()) == SHAPE.parameters


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(99)
    first = build_model(SHAPE, 0, seed=1).state_dict()
    torch.manual_seed(7)
    second, other = build_model(SHAPE, 0, seed=1).state_dict(), build_model(SHAPE, 0, seed=2).state_dict()
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not torch.equal(first["transformer.wte.weight"], other["transformer.wte.weight"])


def test_the_activation_is_the_one_of_gpt2():
    from transformers.activations import ACT2FN

    x = torch.linspace(-6, 6, 1001)
    assert torch.allclose(ACT2FN["gelu_pytorch_tanh"](x), ACT2FN["gelu_new"](x), atol=1e-6)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = build_model(SHAPE, 0, seed=1, gradient_checkpointing=checkpointing)
        tokens = torch.arange(64).reshape(2, 32)
        model(input_ids=tokens, use_cache=False).logits.square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_a_fresh_model_knows_nothing():
    tokens = torch.randint(256, (16, 33), generator=torch.Generator().manual_seed(1))
    logits = build_model(SHAPE, 0, seed=1)(input_ids=tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(256), abs=0.05)
