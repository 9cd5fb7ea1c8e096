"""The samples that the model generated during training: one line of JSON each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hatchery_api.base import Record
from hatchery_jobs.runtime import write_atomically

SAMPLES: Final = "samples.jsonl"
"""Name of the file in the model's folder."""


class Sample(Record):
    """What the model generated for a prompt."""

    step: int
    """Updates done before."""
    prompt: str
    """The prompt, as in the spec."""
    text: str
    """The completion; of an encoder-decoder the output."""
    tokens: int
    """Tokens of the completion."""
    ended: bool
    """Whether the model ended the text itself, with an end-of-text token."""


def store_samples(path: Path, samples: Sequence[Sample], before_step: int) -> None:
    """Appends samples to the file, and removes those of steps from `before_step` on."""
    kept = [sample for sample in read_samples(path) if sample.step < before_step]
    lines = (json.dumps(sample.wire(), ensure_ascii=False) + "\n" for sample in [*kept, *samples])
    write_atomically(path, "".join(lines).encode())


def read_samples(path: Path) -> list[Sample]:
    """All samples of a run; empty if there is no file."""
    if not path.exists():
        return []
    with path.open() as lines:
        return [Sample.model_validate_json(line) for line in lines]
