"""Line charts as SVG: no scripts, no external resources, light and dark by the reader's preference.

Equal numbers give equal bytes: coordinates are rounded, and nothing depends on time or place.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Point = tuple[float, float]
"""Update and value."""

BUCKETS: Final = 240
"""Columns a line is downsampled to; each keeps its lowest and highest point, so spikes survive."""

SMOOTH_FROM: Final = 120
"""Number of points from which a line is also drawn smoothed."""

TICKS: Final = 5
"""Approximate number of ticks per axis."""

PADDING: Final = 0.04
"""Free space above and below the values, as a share of their range."""

LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 44.0, 32.0
"""Margins in pixels."""

CHART_STYLE: Final = """
svg{--ink:#1f2328;--soft:#59636e;--grid:#d9dee3;--a:#0969da;--b:#bc4c00;--c:#1a7f37;--bad:#cf222e;--odd:#8250df}
@media (prefers-color-scheme:dark){
svg{--ink:#e6edf3;--soft:#9198a1;--grid:#30363d;--a:#58a6ff;--b:#f0883e;--c:#3fb950;--bad:#ff7b72;--odd:#bc8cff}}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--soft)}
svg .title{font-size:14px;font-weight:600;fill:var(--ink)}
svg .grid{stroke:var(--grid);stroke-width:1}
svg polyline{fill:none;stroke-width:1.75;stroke-linejoin:round}
svg .raw{stroke-width:1;opacity:.35}
svg .a{stroke:var(--a)}svg .b{stroke:var(--b)}svg .c{stroke:var(--c)}
svg .fa{fill:var(--a)}svg .fb{fill:var(--b)}svg .fc{fill:var(--c)}
svg .restart{stroke:var(--soft);fill:var(--soft)}svg .rollback{stroke:var(--bad);fill:var(--bad)}
svg .skip{stroke:var(--odd);fill:var(--odd)}
svg line.mark{stroke-width:1;stroke-dasharray:3 3;opacity:.8}
"""
"""Style of the charts, for their page or for a standalone chart."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    """Name in the legend."""
    points: Sequence[Point]
    """Points; the line is interrupted where the update decreases."""
    colour: str = "a"
    """One of `a`, `b`, `c`."""
    dots: bool = False
    """Also draw the points."""


@dataclass(frozen=True)
class Mark:
    """An event at an update."""

    step: float
    """The update."""
    kind: str
    """`restart`, `rollback` or `skip`."""
    text: str
    """Tooltip."""


@dataclass(frozen=True)
class Scale:
    """Maps a range of values to pixels."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers in the range."""
        return log_ticks(self.low, self.high) if self.is_log else ticks(self.low, self.high)


@dataclass(frozen=True)
class Chart:
    """A chart of values by update."""

    title: str
    """Heading."""
    lines: Sequence[Line]
    """Lines; those without points are left out."""
    marks: Sequence[Mark] = ()
    """Events."""
    steps: int = 0
    """Minimum end of the update axis."""
    width: int = 1080
    """Pixels at full size; a page may show it smaller."""
    height: int = 300
    """Pixels at full size."""
    from_zero: bool = False
    """Whether the axis of values begins at 0."""
    is_log: bool = False
    """Whether the value axis is logarithmic, if all values are positive."""

    def svg(self, *, alone: bool = False) -> str:
        """The chart; `alone` embeds the style."""
        lines = [line for line in map(_finite, self.lines) if line.points]
        scale_x, scale_y = self._scales(lines)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.title)}">',
            f"<style>{CHART_STYLE}</style>" if alone else "",
            f'<text class="title" x="{LEFT:g}" y="20">{escape(self.title)}</text>',
            *_legend(lines, self.marks, self.width - RIGHT),
            *self._axes(scale_x, scale_y),
            *(part for mark in self.marks for part in _mark(mark, scale_x, self.height - BOTTOM)),
            *(part for line in lines for part in _line(line, scale_x, scale_y)),
            ""
            if lines
            else f'<text x="{self.width / 2:g}" y="{self.height / 2:g}" text-anchor="middle">no data</text>',
            "</svg>",
        ]
        return "".join(parts)

    def _scales(self, lines: Sequence[Line]) -> tuple[Scale, Scale]:
        steps = [step for line in lines for step, _ in line.points]
        values = [value for line in lines for _, value in line.points]
        first, last = (min(steps), max(*steps, self.steps)) if steps else (0.0, max(1, self.steps))
        return (
            Scale(first, last if last > first else first + 1, LEFT, self.width - RIGHT),
            Scale(*self._range(values), self.height - BOTTOM, TOP, is_log=self._fits_log(values)),
        )

    def _fits_log(self, values: Sequence[float]) -> bool:
        return self.is_log and bool(values) and min(values) > 0

    def _range(self, values: Sequence[float]) -> tuple[float, float]:
        """Lowest and highest value with padding."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if self._fits_log(values):
            return low * 0.95, high * 1.05
        low = min(0.0, low) if self.from_zero else low
        room = PADDING * (high - low) or abs(high) * 0.1 or 1.0
        return low if self.from_zero and low == 0 else low - room, high + room

    def _axes(self, scale_x: Scale, scale_y: Scale) -> Iterable[str]:
        for value in scale_y.ticks():
            y = scale_y(value)
            yield f'<line class="grid" x1="{LEFT:g}" x2="{self.width - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{label(value)}</text>'
        for value in scale_x.ticks():
            x = f'x="{scale_x(value):.1f}"'
            yield f'<text {x} y="{self.height - BOTTOM + 20:g}" text-anchor="middle">{label(value)}</text>'


def _finite(line: Line) -> Line:
    points = [point for point in line.points if math.isfinite(point[1])]
    return Line(line.name, points, line.colour, line.dots)


def _legend(lines: Sequence[Line], marks: Sequence[Mark], right: float) -> Iterable[str]:
    """Names with their colours, from the right edge to the left."""
    entries = [(line.name, f"f{line.colour}") for line in lines]
    entries += [(kind, kind) for kind in dict.fromkeys(mark.kind for mark in marks)]
    for name, style in reversed(entries):
        right -= 7.0 * len(name)
        yield f'<text x="{right:.0f}" y="20">{escape(name)}</text>'
        right -= 14
        yield f'<rect class="{style}" x="{right:.0f}" y="11" width="9" height="9" rx="2"/>'
        right -= 16


def _mark(mark: Mark, scale_x: Scale, bottom: float) -> Iterable[str]:
    x = scale_x(min(max(mark.step, scale_x.low), scale_x.high))
    yield f'<line class="mark {mark.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP:g}" y2="{bottom:g}"/>'
    corners = f"{x - 5:.1f},{TOP - 8:g} {x + 5:.1f},{TOP - 8:g} {x:.1f},{TOP:g}"
    yield f'<polygon class="{mark.kind}" points="{corners}"><title>{escape(mark.text)}</title></polygon>'


def _line(line: Line, scale_x: Scale, scale_y: Scale) -> Iterable[str]:
    is_smoothed = len(line.points) >= SMOOTH_FROM
    for segment in segments(line.points):
        buckets = max(1, BUCKETS * len(segment) // len(line.points))
        style = f"{line.colour} raw" if is_smoothed else line.colour
        yield _polyline(thinned(segment, buckets), style, scale_x, scale_y)
        if is_smoothed:
            yield _polyline(thinned(smoothed(segment), buckets), line.colour, scale_x, scale_y)
    if line.dots:
        for step, value in line.points:
            text = f"{line.name} at {step:,.0f}: {value:.4g}"
            place = f'cx="{scale_x(step):.1f}" cy="{scale_y(value):.1f}"'
            yield f'<circle class="f{line.colour}" {place} r="3"><title>{escape(text)}</title></circle>'


def _polyline(points: Sequence[Point], style: str, scale_x: Scale, scale_y: Scale) -> str:
    text = " ".join(f"{scale_x(step):.1f},{scale_y(value):.1f}" for step, value in points)
    return f'<polyline class="{style}" points="{text}"/>'


def segments(points: Sequence[Point]) -> list[list[Point]]:
    """Parts of a line in which updates only increase."""
    parts: list[list[Point]] = []
    for point in points:
        if not parts or point[0] < parts[-1][-1][0]:
            parts.append([])
        parts[-1].append(point)
    return parts


def thinned(points: Sequence[Point], buckets: int = BUCKETS) -> list[Point]:
    """At most two points per column, the lowest and the highest, in order."""
    if len(points) <= 2 * buckets:
        return list(points)
    kept: list[Point] = []
    for bucket in range(buckets):
        part = points[len(points) * bucket // buckets : len(points) * (bucket + 1) // buckets]
        ends = {min(range(len(part)), key=lambda n: part[n][1]), max(range(len(part)), key=lambda n: part[n][1])}
        kept += [part[n] for n in sorted(ends)]
    return kept


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Moving average over a fiftieth of the line, truncated at its ends."""
    half = max(1, len(points) // 100)
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    windows = ((max(0, n - half), min(len(points), n + half + 1)) for n in range(len(points)))
    return [(p[0], (sums[end] - sums[begin]) / (end - begin)) for p, (begin, end) in zip(points, windows, strict=True)]


def ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within a positive range, fewer per power of ten the more it spans."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = next((f for span, f in ((1, (1, 1.5, 2, 3, 4, 5, 7)), (2, (1, 2, 5))) if len(powers) - 2 <= span), (1,))
    return [value for power in powers for factor in factors if low <= (value := factor * 10.0**power) <= high]


def label(value: float) -> str:
    """A number on an axis, short."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.3g}"
