"""Generates samples during training without changing its course.

Sampling has a random generator of its own, and the model gets back its mode. Shapes: one prompt at a time, T tokens so
far, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from hatchery_jobs.pretrain.record import Sample


def generate_samples(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    step: int,
    should_stop: Callable[[], bool],
) -> list[Sample] | None:
    """One sample per prompt, the same for the same weights, seed and step; None if `should_stop` returned true.

    Args:
        model: Causal or encoder-decoder transformers model, not wrapped by DDP; with FSDP all workers call this.
        tokenizer: The model's transformers tokenizer.
        prompts: Prompts; one that exceeds the model's context is truncated on the left.
        max_tokens: Most tokens of a sample.
        temperature: Of the softmax that tokens are drawn from; 0 decodes greedily.
        seed: Of the draws.
        step: Updates done; each step has its own draws.
        should_stop: Called before every token; with FSDP it must return the same on all workers.
    """
    was_training = model.training
    model.eval()
    samples = []
    try:
        with torch.no_grad():
            for number, prompt in enumerate(prompts):
                ids = _prompt_ids(model, tokenizer, prompt, max_tokens)
                generator = _generator(seed, step, number)
                generated: list[int] = []
                for token in islice(_tokens(model, ids, temperature, generator), max_tokens):
                    if should_stop():
                        return None
                    generated.append(token)
                    if token == tokenizer.eos_token_id:
                        break
                text, count = _text(tokenizer, [] if model.config.is_encoder_decoder else ids, generated)
                samples.append(Sample(step=step, prompt=prompt, text=text, tokens=count, ended=count < len(generated)))
    finally:
        model.train(was_training)
    return samples


def _prompt_ids(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> list[int]:
    """Token ids of a prompt: for an encoder with end-of-text, for a decoder with room for the completion."""
    ids: list[int] = tokenizer(prompt, add_special_tokens=False).input_ids
    if model.config.is_encoder_decoder:
        return [*ids, tokenizer.eos_token_id]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None:
        ids = ids[-max(1, positions - max_tokens) :]
    return ids or [tokenizer.eos_token_id]


def _generator(seed: int, step: int, number: int) -> torch.Generator:
    (state,) = np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def _tokens(model: Any, ids: list[int], temperature: float, generator: torch.Generator) -> Iterator[int]:
    """Generates tokens until the context is full or the logits are NaN."""
    device = next(model.parameters()).device
    encoded: dict[str, Any] = {}
    new_ids, cached = ids, 0
    positions = getattr(model.config, "max_position_embeddings", None)
    if model.config.is_encoder_decoder:
        encoded["encoder_outputs"] = model.get_encoder()(input_ids=torch.tensor([ids], device=device))
        new_ids = [model.config.decoder_start_token_id]
    name = "decoder_input_ids" if encoded else "input_ids"
    past = None
    while positions is None or cached + len(new_ids) <= positions:
        inputs = {name: torch.tensor([new_ids], device=device)}
        output = model(**encoded, **inputs, past_key_values=past, use_cache=True)
        logits = output.logits[0, -1].double().cpu()  # (V,)
        if torch.isnan(logits).any():
            return
        token = _draw(logits, temperature, generator)
        yield token
        past, cached, new_ids = output.past_key_values, cached + len(new_ids), [token]


def _draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / temperature, dim=0), 1, generator=generator))


def _text(tokenizer: Any, prompt_ids: list[int], generated: list[int]) -> tuple[str, int]:
    """Text and length in tokens of a completion, without the end-of-text token."""
    own = generated[:-1] if generated and generated[-1] == tokenizer.eos_token_id else generated
    # decoded together with the prompt, because some tokenizers drop the space in front of the first token
    return tokenizer.decode(prompt_ids + own)[len(tokenizer.decode(prompt_ids)) :], len(own)
