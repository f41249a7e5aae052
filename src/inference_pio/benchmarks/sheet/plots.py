"""Plots as SVG: narrow enough for a phone, in the colours of the page they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 420
_MARGIN, _ROW, _AXIS = 12, 40, 30
_LETTER = 7.4  # px of a letter at 13 px, at most: DejaVu Sans, the widest that browsers fall back to
_NAME_LETTERS, _VALUE_LETTERS = 27, 25


@dataclass(frozen=True)
class Bar:
    """A ratio, 1 is no change; `low` and `high` where it has an interval. tone: better, worse or unclear."""

    name: str
    ratio: float
    value: str
    tone: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """A technique by speed (times faster) and by how far it moves answers (nats)."""

    name: str
    speed: float
    moved: float
    exact: bool


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Ratios on a logarithmic axis, each from 1 to its median, with whiskers over its interval."""
    ends = [end for row in rows for end in (row.ratio, row.low or row.ratio, row.high or row.ratio)]
    scale, ticks = _log_axis(min(ends), max(ends))
    height = _ROW * len(rows) + _AXIS
    parts = []
    for tick in ticks:
        x = scale(tick)
        kind = "one" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - _AXIS + 6}"/>')
        parts.append(_text(x, height - 8, f"{tick:g}×", "axis", _anchor(x)))
    for number, row in enumerate(rows):
        parts += _bar(row, number * _ROW, scale)
    return _svg(title, height, parts)


def scatter(title: str, points: Sequence[Point]) -> str:
    """Speed across, how far answers move upwards, both logarithmic; points have the numbers of the list below."""
    height, floor = 300, 1e-9
    bottom = height - _AXIS - 16
    across, ticks = _log_axis(min(one.speed for one in points), max(one.speed for one in points), left=58)
    logs = [math.log10(max(floor, one.moved)) for one in points]
    low, high = math.floor(min(logs)), math.ceil(max(logs) + 0.1)
    step = max(1, math.ceil((high - low) / 6))

    def up(log: float) -> float:
        return 16 + (bottom - 16) * (high - log) / (high - low)

    parts = []
    for tick in ticks:
        x = across(tick)
        kind = "one" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 18, f"{tick:g}×", "axis", _anchor(x)))
    for level in range(low, high + 1, step):
        y = up(level)
        parts.append(f'<line class="grid" x1="58" x2="{WIDTH - _MARGIN}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(50, y + 4, f"1e{level}", "axis", "end"))
    for number, (point, log) in enumerate(zip(points, logs, strict=True), 1):
        x, y, kind = across(point.speed), up(log), "better" if point.exact else "approximate"
        name = escape(f"{point.name}: {point.speed:.2f}×, {point.moved:.2g} nats")
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="9"><title>{name}</title></circle>')
        parts.append(_text(x, y + 4, str(number), "number", "middle"))
    parts.append(_text(WIDTH / 2, height - 4, "throughput, times that without", "axis", "middle"))
    return _svg(title, height, parts)


def _bar(row: Bar, top: float, scale: Callable[[float], float]) -> list[str]:
    base, end, middle = scale(1), scale(row.ratio), top + 26
    parts = [
        _text(_MARGIN, top + 13, _short(row.name, _NAME_LETTERS), "name", "start"),
        _text(WIDTH - _MARGIN, top + 13, _short(row.value, _VALUE_LETTERS), "value", "end"),
        f'<rect class="{row.tone}" x="{min(base, end):.1f}" y="{middle - 6}" width="{abs(end - base):.1f}" '
        f'height="12" rx="2"/>',
    ]
    if row.low is not None and row.high is not None:
        left, right = scale(row.low), scale(row.high)
        parts.append(
            f'<path class="whisker" d="M{left:.1f} {middle - 4}v8M{left:.1f} {middle}H{right:.1f}'
            f'M{right:.1f} {middle - 4}v8"/>'
        )
    return parts


def _log_axis(
    low: float, high: float, left: float = _MARGIN + 6
) -> tuple[Callable[[float], float], list[float]]:
    """Pixels of a value, and round values to mark; 1 is always one of them."""
    reach = max(math.log(1.15), -math.log(low), math.log(high)) * 1.05
    start = -reach if low < 1 else -reach * 0.15
    stop = reach if high > 1 else reach * 0.15
    start, stop = max(start, 1.3 * math.log(min(low, 0.95))), min(stop, 1.3 * math.log(max(high, 1.05)))
    right = WIDTH - _MARGIN - 6

    def scale(value: float) -> float:
        return left + (right - left) * (math.log(value) - start) / (stop - start)

    steps = (
        0.01,
        0.02,
        0.05,
        0.1,
        0.2,
        0.5,
        0.7,
        0.8,
        0.9,
        1,
        1.1,
        1.2,
        1.5,
        2,
        3,
        5,
        10,
        20,
        50,
        100,
        200,
        500,
    )
    ticks: list[float] = [1]
    for step in sorted(steps, key=lambda value: abs(math.log(value)), reverse=True):
        x = scale(step)
        if left + 14 <= x <= right - 14 and all(abs(x - scale(other)) > 60 for other in ticks):
            ticks.append(step)
    return scale, sorted(ticks)


def _anchor(x: float) -> str:
    if x < _MARGIN + 20:
        return "start"
    return "end" if x > WIDTH - _MARGIN - 20 else "middle"


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _text(x: float, y: float, words: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    name = escape(title)
    return (
        f'<figure><figcaption>{name}</figcaption><svg viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{name}">{"".join(parts)}</svg></figure>'
    )
