"""The examples of the user's guide to training."""

from pathlib import Path
from typing import Any, Final

import yaml

GUIDE: Final = Path(__file__).resolve().parents[3] / "docs/training.md"

LEAST: Final[dict[str, Any]] = {
    "corpora": [{"corpusRef": {"name": "code"}}],
    "tokenizerRef": {"name": "code"},
    "schedule": {"steps": 1000},
}
"""What an example that shows a few fields leaves out."""


def examples() -> list[dict[str, Any]]:
    """The spec of every example in the guide; one that is not a whole PretrainRun is a part of its spec."""
    found = [yaml.safe_load(block.split("```")[0]) for block in GUIDE.read_text().split("```yaml\n")[1:]]
    return [example["spec"] if "kind" in example else {**LEAST, **example} for example in found]
