"""Sizes of every family against the models the library builds, and against published numbers."""

import json
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models

from hatchery_api.resources.pretrain import FAMILIES, PretrainRunSpec
from hatchery_jobs.pretrain.data.vocabulary import SpecialIds, Vocabulary
from hatchery_jobs.pretrain.model import MODEL_FAMILIES, ModelConfig, resolve_config
from hatchery_jobs.pretrain.model.config import config_of_weights
from hatchery_jobs.pretrain.training.model_factory import build_model
from hatchery_jobs.runtime.errors import DataError, SpecError

OBJECTIVES = {family: objective for objective, families in FAMILIES.items() for family in families}
SPECIAL = SpecialIds(eos=0, pad=1, mask=2, cls=3, sep=4)
EACH_FAMILY = pytest.mark.parametrize("family", MODEL_FAMILIES)


def vocabulary(size: int = 300, special: SpecialIds | None = None) -> Vocabulary:
    return Vocabulary(Tokenizer(models.BPE()), size, 0, special or SPECIAL)


def spec(family: str = "gpt2", size: str = "tiny", *, objective=None, overrides=None, sequence=64, **fields):
    return PretrainRunSpec.model_validate(
        {
            "corpora": [{"corpusRef": {"name": "x"}}],
            "tokenizerRef": {"name": "x"},
            "objective": {"type": OBJECTIVES[family], **(objective or {})},
            "model": {"architecture": family, "size": size, "overrides": overrides or {}, **fields.pop("model", {})},
            "data": {"sequenceLength": sequence, **fields.pop("data", {})},
            "schedule": {"steps": 2},
            **fields,
        }
    )


def built(config: ModelConfig, device: str = "cpu") -> int:
    with torch.device(device):
        return sum(p.numel() for p in build_model(config, SPECIAL, seed=1).parameters())


@pytest.mark.parametrize(("size", "millions"), [("small", 111.0), ("xl", 1529.6)])
def test_the_books_two_models(size, millions):
    config = resolve_config(spec(size=size, sequence=1024), vocabulary(32_768))
    assert round(config.parameters / 1e6, 1) == millions
    assert built(config, "meta") == config.parameters


@pytest.mark.parametrize(
    ("family", "size", "vocab", "positions", "published"),
    [
        ("gpt2", "small", 50_257, 1024, 124_439_808),
        ("gpt2", "xl", 50_257, 1024, 1_557_611_200),
        ("llama", "small", 49_152, 2048, 134_515_008),  # SmolLM-135M
        ("llama", "medium", 49_152, 2048, 361_821_120),  # SmolLM-360M
        ("llama", "large", 128_256, 2048, 1_235_814_400),  # Llama-3.2-1B
        ("llama", "xl", 128_256, 2048, 3_212_749_824),  # Llama-3.2-3B
    ],
)
def test_presets_have_the_published_number_of_parameters(family, size, vocab, positions, published):
    assert resolve_config(spec(family, size, sequence=positions), vocabulary(vocab)).parameters == published


def test_bert_base_has_its_published_parts():
    config = resolve_config(spec("bert", "small", sequence=512), vocabulary(30_522))
    pooler, head = 768 * 769, 768 * 768 + 3 * 768 + 30_522
    assert config.parameters - head + pooler == 109_482_240  # BERT-base without the heads of pretraining


@EACH_FAMILY
@pytest.mark.parametrize("size", ["tiny", "small", "medium", "large", "xl"])
def test_parameters_are_counted_before_torch_is_needed(family, size):
    config = resolve_config(spec(family, size, sequence=512), vocabulary(32_768))
    assert built(config, "meta") == config.parameters


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("gpt2", {"layers": 3, "heads": 2, "hiddenSize": 48, "feedForwardSize": 100, "maxPositions": 96}),
        ("llama", {"layers": 3, "heads": 6, "keyValueHeads": 3, "hiddenSize": 48, "feedForwardSize": 100}),
        ("bert", {"layers": 3, "heads": 2, "hiddenSize": 48, "feedForwardSize": 100, "maxPositions": 96}),
        ("roberta", {"layers": 3, "heads": 2, "hiddenSize": 48, "maxPositions": 96}),
        ("t5", {"layers": 3, "heads": 2, "hiddenSize": 48, "feedForwardSize": 100}),
    ],
)
def test_overrides_are_counted_too(family, overrides):
    config = resolve_config(spec(family, overrides=overrides), vocabulary())
    assert (config.layers, config.width) == (3, 48)
    assert built(config) == config.parameters


def test_the_next_sentence_head_is_counted():
    config = resolve_config(spec("bert", objective={"masked": {"nextSentence": True}}), vocabulary())
    assert built(config) == config.parameters
    assert config.parameters - replace(config, next_sentence=False).parameters == 128 * 128 + 128 + 2 * 128 + 2


@pytest.mark.parametrize(
    ("family", "overrides", "message"),
    [
        ("gpt2", {"heads": 3}, "3 heads do not divide a width of 128"),
        ("gpt2", {"keyValueHeads": 2}, "keyValueHeads: gpt2 has as many as heads"),
        ("llama", {"keyValueHeads": 3}, "3 keyValueHeads do not divide 4 heads"),
    ],
)
def test_what_a_family_cannot_do_is_said_at_once(family, overrides, message):
    with pytest.raises(SpecError, match=message):
        resolve_config(spec(family, overrides=overrides), vocabulary())


def test_a_sequence_longer_than_the_positions_is_refused():
    wrong = spec("gpt2").model_copy(update={"model": spec("gpt2", overrides={"maxPositions": 32}).model})
    with pytest.raises(SpecError, match="sequenceLength is 64, the model has 32 positions"):
        resolve_config(wrong, vocabulary())


def test_padding_that_ends_texts_too_is_refused():
    with pytest.raises(DataError, match=r"pad_token, id 0, is another special token.*specialTokens\.pad"):
        resolve_config(spec("roberta"), vocabulary(special=SpecialIds(eos=0, pad=0)))


def test_operations_of_a_token_are_those_of_the_books_model():
    config = resolve_config(spec(size="small", sequence=1024), vocabulary(32_768))
    # 6N + 12LCT with N without positions: 0.774 GFLOP, less what biases and norms would add
    assert config.flops_per_token(1024) / 1e9 == pytest.approx(0.774, abs=0.001)


@EACH_FAMILY
def test_operations_agree_with_a_count_of_every_product(family):
    from torch.utils.flop_counter import FlopCounterMode

    config = resolve_config(spec(family, overrides={"layers": 2}), vocabulary(512))
    model = build_model(config, SPECIAL, seed=1, attention="eager")
    tokens = torch.full((1, 64), 5)
    with FlopCounterMode(display=False) as counter:
        more = {"decoder_input_ids": tokens[:, :24]} if family == "t5" else {}
        model(input_ids=tokens, **more).logits.sum().backward()
    counted = counter.get_total_flops() / 64
    # the first layer's inputs need no gradient in t5's relative bias, and such small things
    assert config.flops_per_token(64, 24 if family == "t5" else 0) == pytest.approx(counted, rel=0.02)


@EACH_FAMILY
def test_weights_decide_the_sizes(family, tmp_path):
    fresh = resolve_config(spec(family, overrides={"dropout": 0.25}), vocabulary())
    build_model(fresh, vocabulary().special, seed=1).save_pretrained(tmp_path)
    again = spec(family, "xl", model={"from": {"pretrainRef": {"name": "x"}}}, overrides={"dropout": 0.25})
    assert config_of_weights(tmp_path, again, vocabulary()) == fresh


def _saved(tmp_path, **config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 128, "vocab_size": 300}


@pytest.mark.parametrize(
    ("config", "fields", "error", "message"),
    [
        ({**GPT2, "model_type": "llama"}, {}, SpecError, "of family 'llama', spec.model.architecture is 'gpt2'"),
        ({**GPT2, "vocab_size": 299}, {}, DataError, "embeddings for 299 tokens, the tokenizer has 300"),
        ({**GPT2, "n_positions": 32}, {}, SpecError, "sequenceLength is 64, the model has 32"),
        (GPT2, {"overrides": {"layers": 3, "heads": 2}}, SpecError, "overrides: heads, layers: the weights"),
        ({"model_type": "gpt2"}, {}, DataError, r"config\.json: not a configuration of gpt2"),
    ],
)
def test_weights_that_do_not_fit_are_refused(config, fields, error, message, tmp_path):
    with pytest.raises(error, match=message):
        config_of_weights(_saved(tmp_path, **config), spec("gpt2", **fields), vocabulary())


def test_weights_with_another_padding_are_refused(tmp_path):
    bert = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    bert |= {"intermediate_size": 64, "max_position_embeddings": 64, "vocab_size": 300, "pad_token_id": 0}
    with pytest.raises(DataError, match="the weights' padding is token 0, the tokenizer's is 1"):
        config_of_weights(_saved(tmp_path, **bert), spec("bert"), vocabulary())


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"config\.json cannot be read"):
        config_of_weights(tmp_path, spec("gpt2"), vocabulary())


def test_a_larger_table_of_embeddings_than_the_tokenizer_is_fine(tmp_path):
    assert config_of_weights(_saved(tmp_path, **{**GPT2, "vocab_size": 320}), spec("gpt2"), vocabulary()).vocab == 320


def test_the_first_t5_and_an_untied_llama_are_counted_right(tmp_path):
    import transformers as hf

    for family, model in (
        (
            "t5",
            hf.T5ForConditionalGeneration(
                hf.T5Config(vocab_size=300, pad_token_id=1, d_model=32, d_ff=64, d_kv=8, num_layers=1, num_heads=2)
            ),
        ),
        (
            "llama",
            hf.LlamaForCausalLM(
                hf.LlamaConfig(
                    vocab_size=300,
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    tie_word_embeddings=False,
                )
            ),
        ),
    ):
        model.save_pretrained(tmp_path / family)
        config = config_of_weights(tmp_path / family, spec(family), vocabulary())
        assert config.parameters == sum(p.numel() for p in model.parameters()), family
