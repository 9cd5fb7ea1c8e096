from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hatchery_jobs.evaluate.tasks.token_blocks import blocks, token_bytes

TEXTS = ["def f():\n    pass\n", "", "漢字 é 🎉🎉", "x" * 100, "\x00 \u0301"]


def joined(tokenizer: Any, texts: list[str]) -> list[int]:
    return [i for text in texts for i in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)]


@pytest.mark.parametrize("length", [1, 7, 8, 1000])
def test_blocks_are_the_joined_documents_cut(tokenizer: Any, length: int) -> None:
    whole = joined(tokenizer, TEXTS)
    found = list(blocks(tokenizer, [TEXTS[:2], TEXTS[2:3], TEXTS[3:]], length, tokenizer.eos_token_id))
    assert [list(block.ids) for block in found] == [whole[i : i + length] for i in range(0, len(whole), length)]
    assert found[-1].documents == len(TEXTS)


def test_bytes_of_byte_level_tokens_are_those_of_the_text(tokenizer: Any) -> None:
    found = list(blocks(tokenizer, [TEXTS], 50, tokenizer.eos_token_id))
    assert sum(block.text_bytes.sum() for block in found) == sum(len(text.encode()) for text in TEXTS)
    ids, sizes = (np.concatenate([getattr(block, name) for block in found]) for name in ("ids", "text_bytes"))
    ascii_tokens = [(i, size) for i, size in zip(ids, sizes, strict=True) if tokenizer.decode([i]).isascii()]
    for i, size in ascii_tokens:
        assert size == (0 if i == tokenizer.eos_token_id else len(tokenizer.decode([i])))


def test_bytes_of_tokens_that_skip_whitespace_add_up_too() -> None:
    words = Tokenizer(models.WordLevel(unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.train_from_iterator(["a é"], trainers.WordLevelTrainer(special_tokens=["?"], show_progress=False))
    text = "  a   é 🎉"
    assert list(token_bytes(text, words.encode(text).offsets)) == [3, 5, 5]
