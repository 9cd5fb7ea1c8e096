"""Continuations of prompts, cut before the next top-level block of Python."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hatchery_api.conditions import Reason
from hatchery_api.resources.evaluate import CompletionTask
from hatchery_jobs.evaluate.model import LoadedModel, check_context_length
from hatchery_jobs.evaluate.tasks.base import Completion, Measure, TaskContext, TaskResult
from hatchery_jobs.runtime import SpecError

PRESETS: Final[Mapping[str, tuple[str, ...]]] = {
    "codeparrot": (
        'def rectangle_area(width: float, height: float):\n    """Compute the area of a rectangle."""\n',
        'def find_urls(html):\n    """Collect all URLs that a piece of HTML links to."""\n',
        "# average of a list, in plain Python\ndef mean(xs):\n    return sum(xs) / len(xs)\n\n"
        "# the same with numpy\nimport numpy as np\ndef mean(xs):",
        "X = np.random.randn(100, 10)\ny = np.random.randint(0, 2, 100)\n\n"
        "# fit a random forest classifier with 20 estimators\n",
        'def is_even(n: int) -> bool:\n    """Return True when n is even.\n\n    >>> is_even(4)\n    True\n    """\n',
    ),
    "none": (),
}
"""Prompts by `preset`: the four tasks of the CodeParrot chapter, and a function with types, docstring and example."""

NEXT_BLOCK: Final = re.compile("\nclass|\ndef|\n#|\n@|\nprint|\nif")
"""Start of a new top-level block of Python; verbatim the rule of the CodeParrot chapter."""

DEFINITION: Final = {
    "mean_tokens": "mean number of tokens the model wrote, the end token not counted",
    "cut_share": "share of continuations that were cut before a new top-level block",
    "seed": "reset before each prompt, so that prompts do not affect each other's continuations",
}
"""Definitions of the numbers, for results.json and the card."""


def first_block(text: str) -> str:
    """The text up to the next top-level block."""
    return NEXT_BLOCK.split(text, maxsplit=1)[0].rstrip()


def run(task: CompletionTask, context: TaskContext) -> TaskResult:
    """Samples continuations of all prompts.

    Raises:
        SpecError: there is no prompt, a prompt leaves no room, or `maxLength` exceeds the model's context length.
    """
    loaded, field = context.loaded, context.field
    check_context_length(f"{field}.maxLength", task.max_length, loaded.positions)
    prompts = encoded_prompts(task, field, loaded.tokenizer)
    if not prompts:
        raise SpecError(Reason.INVALID_SPEC, f"{field}.prompts: empty; preset none needs at least one prompt")
    completions: list[Completion] = []
    for index, (prompt, ids) in enumerate(prompts):
        completions += [
            _completion(task, prompt, generated, (index, number))
            for number, generated in enumerate(_continuations(task, loaded, ids))
        ]
        context.progress(index + 1, len(prompts), "prompts")
    return TaskResult(_measures(completions), DEFINITION | {"generation": generation_settings(task)}, completions)


def encoded_prompts(task: CompletionTask, field: str, tokenizer: Any) -> list[tuple[str, list[int]]]:
    """All prompts with their token ids, those of the preset first.

    Raises:
        SpecError: a prompt leaves no room for a continuation.
    """
    preset = PRESETS[task.preset]
    encoded = []
    for index, prompt in enumerate((*preset, *task.prompts)):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        own = index - len(preset)
        where = f"{field}.prompts[{own}]" if own >= 0 else f"{field}.preset: prompt {index} of {task.preset}"
        if len(ids) >= task.max_length:
            raise SpecError(
                Reason.INVALID_SPEC,
                f"{where}: has {len(ids)} tokens, which leaves no room for a continuation within maxLength "
                f"{task.max_length}; raise {field}.maxLength to more than {len(ids)}, or shorten the prompt",
            )
        if not ids:
            raise SpecError(Reason.INVALID_SPEC, f"{where}: has no tokens; write a prompt")
        encoded.append((prompt, ids))
    return encoded


def generation_settings(task: CompletionTask) -> dict[str, Any]:
    """Sampling settings under the names of transformers; temperature 0 decodes greedily, one continuation a prompt."""
    if task.temperature == 0:
        return {"do_sample": False, "num_beams": 1, "max_length": task.max_length, "num_return_sequences": 1}
    return {
        "do_sample": True,
        "num_beams": 1,
        "temperature": task.temperature,
        "top_p": task.top_p,
        "top_k": task.top_k,
        "max_length": task.max_length,
        "num_return_sequences": task.num_completions,
        "seed": task.seed,
    }


@dataclass(frozen=True)
class _Generated:
    """What the model generated after a prompt."""

    text: str
    tokens: int
    ended: bool


def _continuations(task: CompletionTask, loaded: LoadedModel, ids: list[int]) -> list[_Generated]:
    import torch
    from transformers import GenerationConfig

    settings = {name: value for name, value in generation_settings(task).items() if name != "seed"}
    # the settings that come with a model would change the results silently
    loaded.model.generation_config = GenerationConfig()
    config = GenerationConfig(**settings, eos_token_id=loaded.end_id, pad_token_id=loaded.end_id)
    prompt = torch.tensor([ids], device=loaded.model.device)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.inference_mode():
        torch.manual_seed(task.seed)
        rows = loaded.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
    return [_generated(loaded, ids, row) for row in rows[:, len(ids) :].tolist()]


def _generated(loaded: LoadedModel, ids: list[int], row: list[int]) -> _Generated:
    ended = loaded.end_id in row
    own = row[: row.index(loaded.end_id)] if ended else row
    # decoded together with the prompt: some tokenizers drop the space in front of the first token
    text = _decoded(loaded.tokenizer, ids + own)[len(_decoded(loaded.tokenizer, ids)) :]
    return _Generated(text, len(own), ended)


def _completion(task: CompletionTask, prompt: str, generated: _Generated, indices: tuple[int, int]) -> Completion:
    cut = task.stop == "firstTopLevelBlock" and NEXT_BLOCK.search(generated.text) is not None
    return Completion(
        prompt_index=indices[0],
        completion_index=indices[1],
        prompt=prompt,
        raw=generated.text,
        completion=generated.text if task.stop == "none" else first_block(generated.text),
        tokens=generated.tokens,
        stop_reason="block" if cut else "eos" if generated.ended else "length",
    )


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _measures(completions: list[Completion]) -> list[Measure]:
    count = len(completions)
    return [
        Measure("mean_tokens", sum(completion.tokens for completion in completions) / count, count),
        Measure("cut_share", sum(completion.stop_reason == "block" for completion in completions) / count, count),
    ]
