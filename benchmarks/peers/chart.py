"""The comparison as a picture: for each row one bar per engine, drawn as SVG by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

_COLOURS = {
    "inference-pio": "#1f5fa8",
    "llama.cpp": "#b5651d",
    "openvino": "#5b3a8c",
    "transformers": "#8a8a8a",
    "vllm": "#2f8f6b",
}
_OTHER = "#444444"
_WIDTH, _LEFT, _BARS = 860, 130, 480
_BAR, _GAP, _HEAD, _TOP = 16, 4, 26, 44


def draw(record: Mapping[str, Any]) -> str:
    """An SVG document. Bars of a row are to the scale of its largest figure; a thin line is the range of the rounds."""
    parts: list[str] = []
    y = _TOP
    for row in record["rows"]:
        figures = {name: engine["figure"] for name, engine in row["engines"].items()}
        if not figures:
            continue
        less = "less is better" if row["unit"] == "s" else "more is better"
        title = f"{row['model']}: {row['title']} ({row['unit']}, {less})"
        parts.append(_text(10, y + 14, title, weight="bold"))
        y += _HEAD
        scale = _BARS / max(figure["maximum"] for figure in figures.values())
        for name, figure in figures.items():
            parts += _bar(y, name, figure, scale)
            y += _BAR + _GAP
        y += 2 * _GAP
    machine = record["environment"]
    where = f"{machine['cpu']}, {machine['threads']} threads, {machine['date'][:10]}"
    head = f"{where}; medians of {record['rounds']} rounds"
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 10}" '
            f'viewBox="0 0 {_WIDTH} {y + 10}" font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{y + 10}" fill="#ffffff"/>',
            _text(10, 24, head),
            *parts,
            "</svg>\n",
        )
    )


def _bar(y: int, name: str, figure: Mapping[str, float], scale: float) -> list[str]:
    length, low, high = (figure[key] * scale for key in ("median", "minimum", "maximum"))
    middle = y + _BAR / 2
    value = f"{figure['median']:,.0f}" if figure["median"] >= 100 else f"{figure['median']:.3g}"
    return [
        _text(10, y + 12, name),
        f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{_COLOURS.get(name, _OTHER)}"/>',
        f'<line x1="{_LEFT + low:.1f}" x2="{_LEFT + high:.1f}" y1="{middle}" y2="{middle}" stroke="#000000"/>',
        _text(_LEFT + high + 6, y + 12, value),
    ]


def _text(x: float, y: float, words: str, *, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}">{escape(words)}</text>'
