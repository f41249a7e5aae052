"""A sheet as one page of HTML: nothing is fetched, plots are inline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from inference_pio.benchmarks.sheet.plots import Bar, Point, bars, scatter
from inference_pio.benchmarks.sheet.record import Compared, Line, Sheet
from inference_pio.benchmarks.sheet.words import (
    HEADER,
    cells,
    idle,
    in_short,
    interval,
    measured,
    moment,
    remarks,
    times,
)

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #5a6370; --line: #d5dae0; --page: #fff; --card: #f6f8fa;
  --better: #1a7f4b; --worse: #b3402a; --unclear: #8a94a0; --approximate: #8250b4; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --soft: #9aa4b0; --line: #3a424c; --page: #14181d;
  --card: #1c2229; --better: #3fb878; --worse: #ee7d63; --unclear: #77818d; --approximate: #b58ae0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p, li { max-width: 48rem; } .soft { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .75rem; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  break-inside: avoid; }
figcaption { font-weight: 600; margin-bottom: .5rem; }
figure ol { margin: .75rem 0 0; padding-left: 1.75rem; font-size: .8rem; columns: 2; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 13px system-ui, sans-serif; fill: var(--text); }
svg .axis, svg .value { fill: var(--soft); font-size: 12px; }
svg .number { fill: #fff; font-size: 11px; font-weight: 600; }
svg .grid { stroke: var(--line); } svg .one { stroke: var(--soft); }
svg .better { fill: var(--better); } svg .worse { fill: var(--worse); } svg .unclear { fill: var(--unclear); }
svg circle.better { fill: var(--better); } svg .approximate { fill: var(--approximate); }
svg .whisker { stroke: var(--text); stroke-width: 1.4; fill: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
td:first-child, th:first-child { min-width: 9rem; }
code { background: var(--card); padding: .1rem .3rem; border-radius: 3px; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { @page { size: A4 landscape; margin: 12mm; } body { padding: 0; font-size: 11px; max-width: none; }
  .plots { display: block; } figure { display: inline-block; width: 32%; vertical-align: top; margin: 0 .5% .5rem 0; }
  .scroll { overflow: visible; } table { font-size: 8.5px; } tr { break-inside: avoid; } }
"""


def page(sheet: Sheet) -> str:
    """The whole document."""
    lines = measured(sheet)
    told = [one for line in lines if (one := line.throughput) is not None and one.verdict != "cannot tell"]
    parts = [
        f"<h1>Techniques: {escape(sheet.model)}</h1>",
        f'<p class="soft">{escape(moment(sheet.date))}, plugin {escape(sheet.plugin)}, {len(lines)} techniques '
        f"measured in turns with the same model without them, {len(told)} of them with a difference in throughput "
        f"that can be told, in {sheet.seconds:,.0f} s.</p>",
    ]
    if lines:
        parts += ["<h2>In short</h2>", _list(in_short(sheet))]
        parts += ["<h2>What each is worth</h2>", _PLOTS_SAY, f'<div class="plots">{_plots(lines)}</div>']
        parts += ["<h2>All figures</h2>", "<p>Without → with the technique.</p>"]
        parts.append(table(HEADER, [cells(line) for line in lines]))
        parts += [
            "<h2>What was measured</h2>",
            table(("technique", "work", "pairs", "at work because"), _work(lines)),
        ]
    if rest := idle(sheet):
        parts += ["<h2>Not at work here</h2>", table(("technique", "status", "why"), rest)]
    parts += ["<h2>How to read this</h2>", _list(remarks(sheet)), "<h2>Machine</h2>", _facts(sheet)]
    parts += ["<h2>Again</h2>", f"<p><code>{escape(sheet.command)}</code></p>"]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Techniques: {escape(sheet.model)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


_PLOTS_SAY = (
    "<p>Right of 1× is better with the technique, left of it worse; whiskers are the interval of the median. Grey: it "
    "cannot be told from no change.</p>"
)


def _plots(lines: Sequence[Line]) -> str:
    speeds: tuple[tuple[str, Callable[[Line], Compared | None]], ...] = (
        ("Time to the first token", lambda line: line.first_token),
        ("Time per token", lambda line: line.per_token),
        ("Throughput", lambda line: line.throughput),
        ("Energy per token", lambda line: line.energy),
    )
    drawn = []
    for title, read in speeds:
        if rows := [_bar(line.name, found) for line in lines if (found := read(line)) is not None]:
            drawn.append(bars(title, rows))
    memory = [_memory_bar(line) for line in lines]
    if rows := [bar for bar in memory if bar is not None]:
        drawn.append(bars("Planned memory", rows))
    points = [
        Point(line.name, line.throughput.ratio.median, line.quality.moved, line.exact)
        for line in lines
        if line.quality is not None and line.throughput is not None
    ]
    if points:
        legend = "".join(f"<li>{_broken(one.name)}</li>" for one in points)
        plot = scatter("Throughput against how far answers move (KL, nats)", points)
        drawn.append(plot.replace("</figure>", f"<ol>{legend}</ol></figure>"))
    return "".join(drawn)


def _bar(name: str, found: Compared) -> Bar:
    ratio = found.ratio
    tone = {"better": "better", "worse": "worse", "cannot tell": "unclear"}[found.verdict]
    return Bar(name, ratio.median, interval(ratio), tone, ratio.low, ratio.high)


def _memory_bar(line: Line) -> Bar | None:
    """By what it needs less; what changes nothing has no bar."""
    ratio = line.planned_ratio
    if ratio is None or line.planned_bytes is None or ratio == 1:
        return None
    after, before = line.planned_bytes
    tone = "better" if ratio > 1 else "worse"
    return Bar(line.name, ratio, f"{times(ratio)}, {before / 1e6:,.0f} → {after / 1e6:,.0f} MB", tone)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Wider ones scroll by themselves."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_broken(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _broken(cell: str) -> str:
    """A long name may go on in the next line behind an underscore."""
    return escape(cell).replace("_", "_<wbr>")


def _work(lines: Sequence[Line]) -> list[tuple[str, str, str, str]]:
    return [(line.name, line.given, str(line.rounds), line.reason) for line in lines]


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"


def _facts(sheet: Sheet) -> str:
    facts = {**sheet.machine, "checkpoint": sheet.checkpoint[:16] or "–"}
    facts |= {f"option {name}": str(value) for name, value in sheet.options.items()}
    return (
        "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items()) + "</dl>"
    )
