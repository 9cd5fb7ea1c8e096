"""The model and its optimizer."""

import json
import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, BertModel
from transformers.activations import ACT2FN

from hatchery_api.resources.pretrain import Optimizer
from hatchery_jobs.pretrain.data.vocabulary import SpecialIds
from hatchery_jobs.pretrain.model import MODEL_FAMILIES, ModelConfig
from hatchery_jobs.pretrain.training.model_factory import build_model, sinusoids
from hatchery_jobs.pretrain.training.optimizer import build_optimizer, parameter_groups
from hatchery_jobs.runtime.errors import DataError, SpecError

SHAPE = ModelConfig(
    architecture="gpt2",
    layers=2,
    heads=4,
    key_value_heads=4,
    head_width=16,
    width=64,
    feed_forward=256,
    positions=32,
    vocab=256,
    dropout=0.0,
)
SPECIAL = SpecialIds(eos=0, pad=1, mask=2, cls=3, sep=4)
FAMILIES = {
    **{family: {} for family in MODEL_FAMILIES},
    "llama": {"key_value_heads": 2},
    "roberta": {"skipped_positions": 2},
}
"""Every family, with what its sizes need."""
EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def shape_of(family: str, **changes) -> ModelConfig:
    return replace(SHAPE, architecture=family, **FAMILIES[family], **changes)


def inputs(family: str) -> dict[str, torch.Tensor]:
    tokens = torch.arange(5, 69).reshape(2, 32)
    return {"input_ids": tokens} | ({"decoder_input_ids": tokens[:, :8]} if family == "t5" else {})


def test_only_matrices_decay():
    model = build_model(SHAPE, SPECIAL, seed=1)
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
    model = build_model(SHAPE, SPECIAL, seed=1)
    optimizer = build_optimizer(model, Optimizer(weight_decay=0.5), peak_lr=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        expected = before[name] * (0.95 if p.dim() > 1 else 1.0)
        assert torch.allclose(p, expected, atol=1e-7), name


@EACH_FAMILY
def test_weights_depend_on_the_seed_alone(family):
    shape = shape_of(family)
    torch.manual_seed(99)
    first = build_model(shape, SPECIAL, seed=1).state_dict()
    torch.manual_seed(7)
    second, other = build_model(shape, SPECIAL, seed=1).state_dict(), build_model(shape, SPECIAL, seed=2).state_dict()
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "roberta"])
@pytest.mark.parametrize("width", [64, 256])
def test_the_spread_of_fresh_weights_follows_the_width(family, width):
    shape = shape_of(family, width=width, head_width=width // 2, feed_forward=4 * width)
    model = build_model(shape, SPECIAL, seed=1)
    spread = math.sqrt(2 / (5 * width))
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(spread, rel=0.03)
    assert model.config.initializer_range == spread
    inner = {n: p.std().item() for n, p in model.named_parameters() if p.dim() == 2 and min(p.shape) >= width}
    assert len(inner) > 2 * shape.layers
    for name, value in inner.items():
        narrower = math.sqrt(2 * shape.layers) if name.endswith("c_proj.weight") else 1.0  # GPT-2's residual layers
        assert value == pytest.approx(spread / narrower, rel=0.05), name


def test_a_shift_changes_all_pairs_of_positions_alike():
    waves = sinusoids(40, 32)
    products = waves @ waves.T
    for shift in (0, 1, 7):
        along = products.diagonal(shift)
        assert torch.allclose(along, along[0].expand_as(along), atol=1e-4)
    assert products[0, 0] == 16.0
    assert products[0, 1] > products[0, 3] > products[0, 9]
    assert sinusoids(3, 5).shape == (3, 5)


@pytest.mark.parametrize(
    ("family", "table"),
    [
        ("gpt2", "transformer.wpe.weight"),
        ("bert", "bert.embeddings.position_embeddings.weight"),
        ("roberta", "roberta.embeddings.position_embeddings.weight"),
    ],
)
def test_positions_begin_as_waves_of_the_same_spread(family, table):
    shape = shape_of(family)
    weight = build_model(shape, SPECIAL, seed=1).state_dict()[table]
    rows = weight[shape.skipped_positions :]
    assert torch.equal(rows, sinusoids(shape.positions, shape.width) * math.sqrt(2) * math.sqrt(2 / (5 * shape.width)))
    assert rows.square().mean().sqrt().item() == pytest.approx(math.sqrt(2 / (5 * shape.width)), rel=1e-5)


@pytest.mark.parametrize(
    ("family", "published"), [("gpt2", "gelu_new"), ("t5", "gelu_new"), ("bert", "gelu"), ("llama", "silu")]
)
def test_the_activation_is_the_familys(family, published):
    config = build_model(shape_of(family), SPECIAL, seed=1).config
    ours = (
        config.dense_act_fn if family == "t5" else (getattr(config, "activation_function", None) or config.hidden_act)
    )
    x = torch.linspace(-6, 6, 1001)
    assert torch.allclose(ACT2FN[ours](x), ACT2FN[published](x), atol=1e-6)
    assert ours != "gelu_new"  # which is seven kernels


@EACH_FAMILY
def test_gradient_checkpointing_changes_no_gradient(family):
    gradients = []
    for checkpointing in (False, True):
        model = build_model(shape_of(family), SPECIAL, seed=1, gradient_checkpointing=checkpointing)
        model(**inputs(family)).logits.square().mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@EACH_FAMILY
def test_all_kernels_compute_the_same(family):
    fused, plain = (
        build_model(shape_of(family), SPECIAL, seed=1, attention=name).eval()(**inputs(family)).logits
        for name in ("auto", "eager")
    )
    assert torch.allclose(fused, plain, atol=1e-5)


@EACH_FAMILY
def test_the_output_layer_shares_the_embedding(family):
    model = build_model(shape_of(family), SPECIAL, seed=1)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_flash_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SpecError, match=r"spec\.attention: flash needs an NVIDIA GPU"):
        build_model(SHAPE, SPECIAL, seed=1, attention="flash")


@EACH_FAMILY
def test_a_saved_model_loads_by_its_task_and_goes_on(family, tmp_path):
    model = build_model(shape_of(family), SPECIAL, seed=1).eval()
    model.save_pretrained(tmp_path)
    loader = {"bert": AutoModelForMaskedLM, "roberta": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}
    expected = model(**inputs(family)).logits
    loaded = loader.get(family, AutoModelForCausalLM).from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(**inputs(family)).logits, expected)
    on = build_model(shape_of(family, dropout=0.5), SPECIAL, seed=2, weights=tmp_path)
    assert on.training
    assert not torch.allclose(on(**inputs(family)).logits, expected, atol=1e-3)  # the dropout of this run, not of that
    assert torch.equal(on.eval()(**inputs(family)).logits, expected)


def test_the_next_sentence_head_may_be_new(tmp_path):
    build_model(shape_of("bert"), SPECIAL, seed=1).save_pretrained(tmp_path)
    first, second = (
        build_model(shape_of("bert", next_sentence=True), SPECIAL, seed=5, weights=tmp_path) for _ in range(2)
    )
    assert torch.equal(first.cls.seq_relationship.weight, second.cls.seq_relationship.weight)
    first.save_pretrained(tmp_path / "again")
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(loaded(**inputs("bert")).logits, first.eval()(**inputs("bert")).prediction_logits)


def test_weights_without_a_needed_part_are_refused(tmp_path):
    BertModel(build_model(shape_of("bert"), SPECIAL, seed=1).config).save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"lacks \d+ parameters of BertForMaskedLM, the first is cls\.predictions"):
        build_model(shape_of("bert"), SPECIAL, seed=1, weights=tmp_path)


def test_weights_that_are_torn_are_refused(tmp_path):
    build_model(SHAPE, SPECIAL, seed=1).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be loaded as GPT2LMHeadModel"):
        build_model(SHAPE, SPECIAL, seed=1, weights=tmp_path)


def test_weights_of_other_sizes_are_refused(tmp_path):
    build_model(SHAPE, SPECIAL, seed=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_embd": 128}))
    with pytest.raises(DataError, match="cannot be loaded as GPT2LMHeadModel"):
        build_model(SHAPE, SPECIAL, seed=1, weights=tmp_path)


@EACH_FAMILY
def test_ids_of_the_tokenizer_are_in_the_configuration(family):
    config = build_model(shape_of(family), SPECIAL, seed=1).config
    assert config.eos_token_id == (SPECIAL.sep if family in ("bert", "roberta") else SPECIAL.eos)
    if family in ("bert", "roberta", "t5"):
        assert config.pad_token_id == SPECIAL.pad
    if family == "t5":
        assert config.decoder_start_token_id == SPECIAL.pad


def test_a_fresh_model_knows_nothing():
    tokens = torch.randint(256, (16, 33), generator=torch.Generator().manual_seed(1))
    logits = build_model(SHAPE, SPECIAL, seed=1)(input_ids=tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    # the last norm leaves states of variance 1, so logits have a variance of width times 2 / (5 width), half of it lost
    assert loss.item() == pytest.approx(math.log(256) + 0.4 / 2, abs=0.05)
