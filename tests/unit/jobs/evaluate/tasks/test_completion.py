import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from hatchery_api.conditions import Reason
from hatchery_api.resources.evaluate import CompletionTask
from hatchery_jobs.evaluate.model import LoadedModel
from hatchery_jobs.evaluate.tasks.base import Completion, TaskContext, TaskResult
from hatchery_jobs.evaluate.tasks.completion import PRESETS, first_block, generation_settings, run
from hatchery_jobs.runtime.errors import SpecError

FIELD = "spec.tasks[1].completion"


def context(loaded: LoadedModel) -> TaskContext:
    return TaskContext(FIELD, loaded, open_corpus=pytest.fail, progress=lambda *_: None)


def complete(loaded: LoadedModel, **fields: Any) -> TaskResult:
    task = CompletionTask.model_validate({"preset": "none", "prompts": ["def f():\n"], **fields})
    return run(task, context(loaded))


class Scripted:
    """Stands for a model that always writes the same tokens."""

    device = torch.device("cpu")

    def __init__(self, *rows: list[int]) -> None:
        self.rows = rows

    def generate(self, prompt: torch.Tensor, **_: object) -> torch.Tensor:
        longest = max(map(len, self.rows))
        return torch.tensor([[*prompt[0].tolist(), *row, *([0] * (longest - len(row)))] for row in self.rows])


def scripted(loaded: LoadedModel, *continuations: str, **fields: Any) -> list[Completion]:
    rows = [loaded.tokenizer(text)["input_ids"] for text in continuations]
    return complete(replace(loaded, model=Scripted(*rows)), **fields).samples


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("    return 1\n\ndef g():", "    return 1"),
        ("    return 1\nclass A", "    return 1"),
        ("    x = 2  \n# next", "    x = 2"),
        ("    x\n@wraps", "    x"),
        ("    x\nprint(x)", "    x"),
        ("    x\nif x:", "    x"),
        ("    x\niffy = 1", "    x"),
        ("    if x:\n        print(x)\n    # inside\n", "    if x:\n        print(x)\n    # inside"),
        ("return x\nwhile True:\n\n", "return x\nwhile True:"),
        ("\ndef g(): pass", ""),
        ("", ""),
    ],
)
def test_first_block_ends_before_the_next_one(text: str, kept: str) -> None:
    assert first_block(text) == kept
    assert first_block(text) == re.split("\nclass|\ndef|\n#|\n@|\nprint|\nif", text)[0].rstrip()


def test_samples_say_what_was_written_and_why_it_ended(loaded: LoadedModel) -> None:
    texts = ["    return 1\ndef g():", "    x = 2 <|endoftext|>def", "    y\n"]
    samples = scripted(loaded, *texts)
    assert [sample.raw for sample in samples] == ["    return 1\ndef g():", "    x = 2 ", "    y\n"]
    assert [sample.completion for sample in samples] == ["    return 1", "    x = 2", "    y"]
    assert [sample.stop_reason for sample in samples[:2]] == ["block", "eos"]
    assert samples[1].tokens == len(loaded.tokenizer("    x = 2 ")["input_ids"])
    assert [sample.completion for sample in scripted(loaded, texts[0], stop="none")] == [texts[0]]


def test_measures_are_means_over_all_continuations(loaded: LoadedModel) -> None:
    task = CompletionTask.model_validate({"preset": "none", "prompts": ["a", "b"]})
    rows = [loaded.tokenizer(text)["input_ids"] for text in ("x\ndef", "yy")]
    found = run(task, context(replace(loaded, model=Scripted(*rows))))
    assert {m.metric: (m.value, m.n) for m in found.measures} == {
        "mean_tokens": (sum(sample.tokens for sample in found.samples) / 4, 4),
        "cut_share": (0.5, 4),
    }


def test_equal_seeds_write_equal_texts_and_prompts_do_not_matter_to_each_other(loaded: LoadedModel) -> None:
    torch.manual_seed(5)
    one = complete(loaded, prompts=["def f():\n", "class A:\n"]).samples
    other = complete(loaded, prompts=["import os\n", "class A:\n"]).samples
    assert [s.raw for s in one[4:]] == [s.raw for s in other[4:]]
    assert len({s.raw for s in one[:4]}) > 1
    assert [s.raw for s in complete(loaded, seed=2).samples] != [s.raw for s in one[:4]]


def test_sampling_leaves_the_process_random_state_alone(loaded: LoadedModel) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    complete(loaded)
    assert torch.equal(torch.rand(3), expected)


def test_greedy_writes_the_likeliest_tokens_once(loaded: LoadedModel) -> None:
    found = complete(loaded, temperature=0, maxLength=20).samples
    ids = loaded.tokenizer("def f():\n")["input_ids"]
    start = len(ids)
    while len(ids) < 20 and ids[-1] != loaded.end_id:
        ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert [sample.raw for sample in found] == [loaded.tokenizer.decode(ids[start:], skip_special_tokens=True)]


def test_a_small_nucleus_is_greedy(loaded: LoadedModel) -> None:
    sampled = complete(loaded, topP=1e-9, maxLength=20).samples
    assert {sample.raw for sample in sampled} == {complete(loaded, temperature=0, maxLength=20).samples[0].raw}


def test_settings_of_the_model_do_not_leak_in(loaded: LoadedModel) -> None:
    expected = [sample.raw for sample in complete(loaded).samples]
    loaded.model.generation_config.repetition_penalty = 50.0
    loaded.model.generation_config.top_k = 1
    assert [sample.raw for sample in complete(loaded).samples] == expected


def test_defaults_are_those_of_the_chapter() -> None:
    assert generation_settings(CompletionTask()) == {
        "do_sample": True,
        "num_beams": 1,
        "temperature": 0.4,
        "top_p": 0.95,
        "top_k": 0,
        "max_length": 64,
        "num_return_sequences": 4,
        "seed": 1,
    }


def test_the_preset_comes_first(loaded: LoadedModel) -> None:
    found = complete(loaded, preset="codeparrot", prompts=["x = 1\n"], numCompletions=2, maxLength=96).samples
    assert len(PRESETS["codeparrot"]) == 5
    prompts = [*PRESETS["codeparrot"], "x = 1\n"]
    assert [(s.prompt_index, s.completion_index, s.prompt) for s in found] == [
        (i, j, prompt) for i, prompt in enumerate(prompts) for j in range(2)
    ]


def test_a_prompt_without_room_is_named(loaded: LoadedModel) -> None:
    own = "def f(): return"
    size = len(loaded.tokenizer(own)["input_ids"])
    assert complete(loaded, prompts=[own], maxLength=size + 1).samples[0].tokens <= 1
    with pytest.raises(SpecError, match=rf"spec\.tasks\[1\]\.completion\.prompts\[1\]: has {size} tokens") as caught:
        complete(loaded, prompts=["a", own], maxLength=size)
    assert caught.value.reason == Reason.INVALID_SPEC
    with pytest.raises(SpecError, match=r"completion\.preset: prompt 0 of codeparrot"):
        complete(loaded, preset="codeparrot", maxLength=8)


def test_no_prompt_at_all_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(SpecError, match=r"spec\.tasks\[1\]\.completion\.prompts"):
        complete(loaded, prompts=[])


def test_more_than_the_model_can_see_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(SpecError, match=r"spec\.tasks\[1\]\.completion\.maxLength: 97 tokens.* of 96") as caught:
        complete(loaded, maxLength=97)
    assert caught.value.reason == Reason.SEQUENCE_TOO_LONG
