"""Numbers, sizes, durations and texts as people read them: in columns, the CLI, conditions, cards and reports.

JSON, YAML and `status` keep full precision; nothing here is ever parsed back.
"""

import math
import re
from typing import Final

DIGITS: Final = 4
"""Significant digits shown of a measured number."""

_SMALLEST_EXPONENT: Final = -4
_LARGEST_EXPONENT: Final = 15
_KIB: Final = 1024
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WORD_CHARS: Final = 24
"""Longest part of a word that is dropped to cut a text between words."""


def significant(value: float, digits: int = DIGITS) -> str:
    """A number rounded to significant digits: `90.21`, `0.0001235`, `123,457`.

    Digits before the point are never rounded away, so integers stay exact. Very small and very large numbers have an
    exponent, `1.235e-07`.
    """
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return f"{value}"
    if value == 0:
        return "0"
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])  # after rounding: 9.9999 has the exponent of 10
    if not _SMALLEST_EXPONENT <= exponent < _LARGEST_EXPONENT:
        return scientific
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things: `1 Job`, `2 Jobs`, `3 batches`; `many` defaults to `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def duration_text(seconds: float) -> str:
    """A duration in its two largest units: `45s`, `1m10s`, `2h05m`, `3d04h`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"


def size_text(count: int) -> str:
    """A number of bytes in its largest unit: `512 B`, `3.0 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KIB
    return f"{size:.1f} TiB"


def shortened(text: str, limit: int) -> str:
    """The text, or its first words with an ellipsis, of at most `limit` characters."""
    if len(text) <= limit:
        return text
    kept = text[: limit - 1]
    cut = None if text[limit - 1].isspace() else re.fullmatch(r"(.*\s)(\S*)", kept, re.DOTALL)
    if cut and cut[1].strip() and len(cut[2]) <= _WORD_CHARS:
        kept = cut[1]
    return f"{kept.rstrip()}…"
