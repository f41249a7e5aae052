"""Figures of a sheet as a reader sees them."""

from __future__ import annotations

import math

from inference_pio.benchmarks.report import number
from inference_pio.benchmarks.samples import CONFIDENCE
from inference_pio.benchmarks.sheet.record import Compared, Line, Sheet, Spread

HEADER = (
    "technique",
    "first token, ms",
    "time per token, ms",
    "tokens/s",
    "planned memory, MB",
    "resident, MB",
    "energy, J/token",
    "KL, nats",
    "top-1",
    "perplexity",
    "equal answers",
)
MISSING = "–"
_WORTH_SAYING = 1.02  # times less memory
_PLAIN = 2.0  # times better or worse: too much for noise


def change(found: Compared | None) -> str:
    """Without → with, and what that is worth."""
    if found is None:
        return MISSING
    return f"{number(found.without.median)} → {number(found.with_it.median)} ({worth(found)})"


def worth(found: Compared) -> str:
    """How many times better or worse where something can be told, and that it cannot where not."""
    if few_but_plain(found):
        word = "better" if found.ratio.median > 1 else "worse"
        pairs = "1 pair" if found.ratio.count == 1 else f"{found.ratio.count} pairs"
        return f"{times(found.ratio.median)} {word}, of {pairs}"
    if found.verdict == "cannot tell":
        return "cannot tell"
    return f"{times(found.ratio.median)} {found.verdict}"


def few_but_plain(found: Compared) -> bool:
    """Too few pairs for a verdict, and in each of them the figure more than doubles."""
    plain = found.ratio.low > _PLAIN or found.ratio.high < 1 / _PLAIN
    return found.ratio.confidence < CONFIDENCE and plain


def interval(ratio: Spread) -> str:
    return f"{ratio.median:.2f}× ({ratio.low:.2f}–{ratio.high:.2f})"


def moment(date: str) -> str:
    """An ISO date and time, to the minute."""
    return date[:16].replace("T", " ") + " UTC"


def times(ratio: float) -> str:
    """How far from equal, always above 1: 0.5 times as good is 2 times worse."""
    return f"{max(ratio, 1 / ratio):.2f}×"


def cells(line: Line) -> tuple[str, ...]:
    """One row under `HEADER`."""
    quality = line.quality
    answers = (
        (
            f"{quality.kl_without:.2g} → {quality.kl:.2g}",
            f"{quality.top1_without:.3f} → {quality.top1:.3f}",
            f"{quality.perplexity_without:.3f} → {quality.perplexity:.3f}",
        )
        if quality
        else (MISSING,) * 3
    )
    return (
        line.name if line.exact else f"{line.name} (approximate)",
        change(line.first_token),
        change(line.per_token),
        change(line.throughput),
        _megabytes(line.planned_bytes),
        _megabytes(line.resident_bytes),
        change(line.energy),
        *answers,
        MISSING if line.equal_answers is None else f"{line.equal_answers:.0%}",
    )


def _megabytes(pair: tuple[int, int] | None) -> str:
    if pair is None:
        return MISSING
    return f"{pair[1] / 1e6:,.0f} → {pair[0] / 1e6:,.0f}"


def idle(sheet: Sheet) -> list[tuple[str, str, str]]:
    """(technique, status, why) of those that did not act."""
    return [(line.name, line.status, line.reason) for line in sheet.lines if line.status != "measured"]


def measured(sheet: Sheet) -> list[Line]:
    return [line for line in sheet.lines if line.status == "measured"]


def in_short(sheet: Sheet) -> list[str]:
    """What a reader in a hurry should know, a sentence each: what helps, what costs, what saves memory."""
    said, lines = [], measured(sheet)
    for verdict, words in (("better", "More tokens per second with"), ("worse", "Fewer with")):
        chosen = [(line, line.throughput) for line in lines if line.throughput is not None]
        told = [(line, found) for line, found in chosen if found.verdict == verdict]
        told.sort(key=lambda one: -abs(math.log(one[1].ratio.median)))
        if told:
            names = (f"{line.name} {times(found.ratio.median)}{_aside(line)}" for line, found in told)
            said.append(f"{words} {', '.join(names)}.")
    saving = [line for line in lines if (line.planned_ratio or 1) >= _WORTH_SAYING]
    saving.sort(key=lambda line: -(line.planned_ratio or 1))
    if saving:
        less = (f"{line.name} {_megabytes(line.planned_bytes)} MB{_aside(line)}" for line in saving)
        said.append(f"Less memory with {', '.join(less)}.")
    open_ = [line for line in lines if line.throughput and line.throughput.verdict == "cannot tell"]
    same = [line.name for line in open_ if line.throughput and not few_but_plain(line.throughput)]
    if same:
        said.append(f"No difference in speed that can be told: {', '.join(same)}.")
    few = [
        f"{line.name} {worth(line.throughput)}"
        for line in open_
        if line.throughput and few_but_plain(line.throughput)
    ]
    if few:
        said.append(f"Too slow for more runs: {', '.join(few)}.")
    return said


def _aside(line: Line) -> str:
    """How far an approximate one moves answers, and options that are not the usual ones."""
    moved = [] if line.exact or line.quality is None else [f"KL {line.quality.moved:.2g}"]
    said = moved + ([f"under {line.under}"] if line.under else [])
    return f" ({', '.join(said)})" if said else ""


def energy_notes(sheet: Sheet) -> list[str]:
    return list(dict.fromkeys(line.energy_note for line in measured(sheet) if line.energy_note))


def remarks(sheet: Sheet) -> list[str]:
    """What a reader must know of the figures, a sentence each."""
    said = [f"Energy: {note}." for note in energy_notes(sheet)]
    said += [f"{note[:1].upper()}{note[1:]}." for note in sheet.notes]
    if sheet.reference:
        said.append(f"Reference logits: {sheet.reference}.")
    if sheet.left:
        said.append(f"Interrupted: {', '.join(sheet.left)} were not measured.")
    return said
