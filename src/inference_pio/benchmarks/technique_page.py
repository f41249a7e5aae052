"""The generated part of docs/optimisations.md: every technique, and every pair."""

from __future__ import annotations

from inference_pio.benchmarks.sheet.markdown import table
from inference_pio.errors import UsageError
from inference_pio.optimizations.combinations import Combinations, Outcome
from inference_pio.optimizations.registry import TECHNIQUES

BEGIN, END = "<!-- generated: python benchmarks/combinations.py -->", "<!-- end of what is generated -->"
SIGNS: dict[Outcome, str] = {
    "equal": "=",
    "bounded": "≈",
    "excluded": "×",
    "never": "·",
    "failed": "!",
    "untested": "?",
}


MEANINGS = {
    "=": "the answers of the model without them, or of the approximate one alone",
    "≈": "other answers, within what the approximate ones alone move them by",
    "×": "they exclude each other",
    "·": "nothing that was tried has both at work",
    "?": "one of them acts on no machine that was tried",
    "!": "wrong answers",
}


def renew(page: str, found: Combinations) -> str:
    """A page with what lies between its two marks written anew.

    Raises:
        UsageError: the marks are not there.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"the page has no part between {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{_techniques()}\n\n{_pairs(found)}\n\n{END}{tail}"


def _techniques() -> str:
    header = (
        "technique",
        "what it does",
        "results",
        "flags of the configuration",
        "needs",
        "excludes",
        "shows on",
    )
    rows = [
        (
            f"`{one.name}`",
            f"{one.title}: {_first_sentence(type(one).__doc__ or '')}".rstrip(": "),
            "exact" if one.exact else "approximate",
            ", ".join(f"`{flag}`" for flag in one.flags),
            ", ".join(one.needs),
            ", ".join(one.conflicts),
            one.shows_on,
        )
        for one in TECHNIQUES.values()
    ]
    return table(header, rows)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph if paragraph.startswith(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ1234567890")) else ""


def _pairs(found: Combinations) -> str:
    count = len(found.pairs)
    numbers = {name: str(number) for number, name in enumerate(found.techniques, 1)}
    rows = [
        [f"{numbers[name]} {name}", *(sign(found, name, other) for other in found.techniques)]
        for name in found.techniques
    ]
    said = f"{count} pairs, tested on {found.date} with release {found.release}."
    wrong = [
        f"* {name.replace(' ', ' and ')}: {pair.reason}"
        for name, pair in found.pairs.items()
        if pair.outcome == "failed"
    ]
    return "\n\n".join([said, table(["", *numbers.values()], rows), *(["\n".join(wrong)] if wrong else [])])


def sign(found: Combinations, name: str, other: str) -> str:
    """One character for a pair; a space where both are one, `?` where nothing is known."""
    if name == other:
        return " "
    pair = found.pair(name, other)
    return SIGNS[pair.outcome] if pair is not None else "?"
