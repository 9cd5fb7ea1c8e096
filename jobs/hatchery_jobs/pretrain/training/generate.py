"""Texts that a model writes while it learns.

They never change what is learnt: chance comes from a generator of their own, and the model gets back its mode. Shapes:
one prompt at a time, T tokens so far, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from hatchery_jobs.pretrain.record.sample_log import Sample


def write_samples(
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
    """One text for each prompt, the same for the same weights, seed and step; None when it was asked to stop.

    Args:
        model: causal or encoder-decoder model of transformers, without DDP around it; FSDP's on all workers at once.
        tokenizer: the model's, of transformers.
        prompts: beginnings; one that is longer than the model can see loses its beginning.
        max_tokens: most tokens of a text.
        temperature: of the softmax that tokens are drawn from; 0 always takes the likeliest.
        seed: of the draws.
        step: updates done; another step draws otherwise.
        should_stop: asked before every token; with FSDP all workers must get the same answer.
    """
    was_training = model.training
    model.eval()
    samples = []
    try:
        with torch.no_grad():
            for number, prompt in enumerate(prompts):
                ids = _prompt_ids(model, tokenizer, prompt, max_tokens)
                chance = _generator(seed, step, number)
                written: list[int] = []
                for token in islice(_tokens(model, ids, temperature, chance), max_tokens):
                    if should_stop():
                        return None
                    written.append(token)
                    if token == tokenizer.eos_token_id:
                        break
                text, own = _text(tokenizer, [] if model.config.is_encoder_decoder else ids, written)
                samples.append(Sample(step=step, prompt=prompt, text=text, tokens=own, ended=own < len(written)))
    finally:
        model.train(was_training)
    return samples


def _prompt_ids(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> list[int]:
    """Ids of a prompt: an encoder's text is ended, a decoder's leaves room for what is to be written."""
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


def _tokens(model: Any, ids: list[int], temperature: float, chance: torch.Generator) -> Iterator[int]:
    """Tokens that follow, until the model sees no further or its numbers are none."""
    device = next(model.parameters()).device
    given: dict[str, Any] = {}
    following, seen = ids, 0
    positions = getattr(model.config, "max_position_embeddings", None)
    if model.config.is_encoder_decoder:
        given["encoder_outputs"] = model.get_encoder()(input_ids=torch.tensor([ids], device=device))
        following = [model.config.decoder_start_token_id]
    name = "decoder_input_ids" if given else "input_ids"
    past = None
    while positions is None or seen + len(following) <= positions:
        inputs = {name: torch.tensor([following], device=device)}
        output = model(**given, **inputs, past_key_values=past, use_cache=True)
        logits = output.logits[0, -1].double().cpu()  # (V,)
        if torch.isnan(logits).any():
            return
        token = _chosen(logits, temperature, chance)
        yield token
        past, seen, following = output.past_key_values, seen + len(following), [token]


def _chosen(logits: torch.Tensor, temperature: float, chance: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / temperature, dim=0), 1, generator=chance))


def _text(tokenizer: Any, before: list[int], written: list[int]) -> tuple[str, int]:
    """What was written after `before` without the token that ends it, and its number of tokens."""
    own = written[:-1] if written and written[-1] == tokenizer.eos_token_id else written
    # decoded together with the prompt: some tokenizers drop the space in front of the first token
    return tokenizer.decode(before + own)[len(tokenizer.decode(before)) :], len(own)
