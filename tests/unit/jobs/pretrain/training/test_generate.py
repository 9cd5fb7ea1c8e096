"""Samples generated during training, compared with the library's own generation."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from hatchery_jobs.pretrain.training.generate import _draw, generate_samples

PROMPTS = ["def area(", "class A"]
SETTINGS = {"max_tokens": 8, "temperature": 0.0, "seed": 1, "step": 5, "should_stop": lambda: False}


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0, **{character: n + 1 for n, character in enumerate(alphabet)}}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


def gpt2(**changes):
    sizes = {"vocab_size": 257, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, **changes}))


def llama():
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=257, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=32, eos_token_id=0, bos_token_id=0,
        )
    )  # fmt: skip


def t5():
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=257, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, eos_token_id=0, pad_token_id=0,
            decoder_start_token_id=0,
        )
    )  # fmt: skip


@pytest.mark.parametrize("family", [gpt2, llama, t5])
def test_greedy_texts_are_those_of_the_library(family, tokenizer):
    torch.manual_seed(3)
    model = family().eval()
    for parameter in model.parameters():
        parameter.data.mul_(6)  # fresh weights are nearly equal for all tokens
    for sample in generate_samples(model, tokenizer, PROMPTS, **SETTINGS):
        ids = tokenizer(sample.prompt).input_ids + ([0] if model.config.is_encoder_decoder else [])
        row = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=8, do_sample=False,
            pad_token_id=256, eos_token_id=0,
        )[0].tolist()  # fmt: skip
        own = row[1:] if model.config.is_encoder_decoder else row[len(ids) :]
        expected = own[: own.index(0)] if 0 in own else own
        assert (sample.tokens, sample.ended) == (len(expected), 0 in own)
        whole = expected if model.config.is_encoder_decoder else ids + expected
        head = "" if model.config.is_encoder_decoder else sample.prompt
        assert head + sample.text == tokenizer.decode(whole)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_training_goes_on_as_if_nothing_had_been_written(tokenizer, temperature):
    torch.manual_seed(0)
    model = gpt2(resid_pdrop=0.5).train()
    before = torch.get_rng_state()
    again = [generate_samples(model, tokenizer, PROMPTS, **{**SETTINGS, "temperature": temperature}) for _ in range(2)]
    assert again[0] == again[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature):
    shares = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    chance = torch.Generator().manual_seed(0)
    draws = [_draw(shares.log(), temperature, chance) for _ in range(4000)]
    expected = shares ** (1 / temperature) / (shares ** (1 / temperature)).sum()
    counts = torch.bincount(torch.tensor(draws), minlength=3) / len(draws)
    assert counts.tolist() == pytest.approx(expected.tolist(), abs=0.03)  # four standard deviations


def test_each_prompt_seed_and_step_draws_otherwise(tokenizer):
    model = gpt2()
    changes = [{}, {"seed": 2}, {"step": 6}]
    drawn = [generate_samples(model, tokenizer, ["x"] * 2, **{**SETTINGS, "temperature": 1.0, **c}) for c in changes]
    assert len({sample.text for samples in drawn for sample in samples}) == 6


def test_a_low_temperature_is_close_to_greedy_and_a_high_one_is_not(tokenizer):
    torch.manual_seed(3)
    model = gpt2()
    for parameter in model.parameters():
        parameter.data.mul_(6)

    def texts(temperature):
        return [s.text for s in generate_samples(model, tokenizer, PROMPTS, **{**SETTINGS, "temperature": temperature})]

    assert texts(1e-4) == texts(0.0) != texts(5.0)


def test_it_asks_before_every_token_and_stops_at_once(tokenizer):
    asked = []

    def stop():
        asked.append(None)
        return len(asked) == 5

    model = gpt2().train()
    assert generate_samples(model, tokenizer, PROMPTS, **{**SETTINGS, "should_stop": stop}) is None
    assert len(asked) == 5
    assert model.training


def test_a_prompt_may_be_longer_than_the_model_sees_or_nothing(tokenizer):
    torch.manual_seed(0)
    model = gpt2(n_positions=16)
    long, cut = generate_samples(model, tokenizer, ["x" * 50 + "abcdefgh", "abcdefgh"], **SETTINGS)
    assert long.text == cut.text
    assert long.tokens == 8
    (empty,) = generate_samples(model, tokenizer, [""], **SETTINGS)
    assert empty.ended or empty.tokens == 8  # begun with the end-of-text token
    (full,) = generate_samples(model, tokenizer, ["abc"], **{**SETTINGS, "max_tokens": 100})
    assert full.tokens == 16  # the last one is drawn from a full window and never seen itself


def test_a_model_whose_numbers_are_none_writes_nothing(tokenizer):
    model = gpt2()
    model.transformer.wte.weight.data.fill_(float("nan"))
    (sample,) = generate_samples(model, tokenizer, ["x"], **{**SETTINGS, "temperature": 1.0})
    assert (sample.text, sample.tokens, sample.ended) == ("", 0, False)
