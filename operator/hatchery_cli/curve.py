"""The loss curve of a run: read from the Hub, plotted with block characters."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Final

from hatchery_api.format import significant
from hatchery_api.status import HubRevision

CURVE_FILE: Final = "metrics.jsonl"
"""File of the curve in a model's folder."""

CURVE_LIMIT_BYTES: Final = 256 * 1024 * 1024
"""Most bytes read of a curve, enough for millions of steps."""

TIMEOUT_SECONDS: Final = 10.0
"""Timeout of the request to the Hub."""

COLUMNS: Final = 60
"""Width of a plot."""

_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"

Points = Sequence[tuple[float, float]]
"""Pairs of step and loss."""


def read_from_hub(hub: HubRevision, endpoint: str | None, token: str | None) -> list[tuple[float, float]]:
    """Training loss by step from the pushed model.

    Args:
        hub: what was pushed.
        endpoint: URL of the Hub as this machine reaches it; default: that of the status.
        token: for private repositories.

    Raises:
        OSError: the Hub is unreachable or rejects the request.
        ValueError: the file is not a curve.
    """
    root = endpoint or "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(hub.url))
    url = f"{root.rstrip('/')}/{hub.repo}/resolve/{hub.revision}/{CURVE_FILE}"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is not an http(s) URL")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the same
        return parse(answer.read(CURVE_LIMIT_BYTES).decode().splitlines())


def parse(lines: Iterable[str]) -> list[tuple[float, float]]:
    """Training loss by step; lines without a training loss are skipped."""
    rows = (json.loads(line) for line in lines)
    return [(float(row["step"]), float(row["loss"])) for row in rows if "loss" in row]


def hub_settings() -> tuple[str | None, str | None]:
    """Endpoint and token from the environment variables of the Hub's own client."""
    return os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN")


def plot(points: Points, rows: int = 8, columns: int = COLUMNS) -> str:
    """The points as columns of block characters, labelled with the largest and the smallest value.

    A column shows the mean of its points, so that noise does not hide the trend.
    """
    finite = [(x, y) for x, y in points if abs(y) < float("inf")]
    if not finite:
        return "no points"
    means = _column_means(finite, columns)
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    heights = [1 + round((mean - low) / span * (rows * 8 - 1)) for mean in means]
    labels = {0: significant(low)} | {rows - 1: significant(high)}
    margin = max(map(len, labels.values()))
    lines = []
    for row in range(rows - 1, -1, -1):
        blocks = "".join(_EIGHTHS[min(8, max(0, height - 8 * row))] for height in heights)
        lines.append(f"{labels.get(row, ''):>{margin}} {blocks}")
    first, last = f"step {finite[0][0]:g}", f"{finite[-1][0]:g}"
    lines.append(" " * (margin + 1) + first + last.rjust(max(len(last) + 1, len(heights) - len(first))))
    return "\n".join(lines)


def _column_means(points: Points, columns: int) -> list[float]:
    first, last = points[0][0], points[-1][0]
    count = min(columns, len(points))
    binned: list[list[float]] = [[] for _ in range(count)]
    for x, y in points:
        place = 0 if last == first else int((x - first) / (last - first) * (count - 1) + 0.5)
        binned[min(count - 1, max(0, place))].append(y)
    means: list[float] = []
    for values in binned:
        means.append(sum(values) / len(values) if values else means[-1])
    return means
