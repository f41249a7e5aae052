"""What is at work in a loaded model, family by family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from inference_pio.optimizations.choice import Chosen
from inference_pio.plugin.facts import TechniqueFact


def families(
    facts: Iterable[TechniqueFact], chosen: Sequence[Chosen], model: nn.Module
) -> list[dict[str, Any]]:
    """One entry for each family of the standard: the plugin's, with `techniques`, what is said of each way of it.

    A family is active where the plugin or one of its techniques says so.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for one in chosen:
        did = one.technique.get_report(model) if one.active else {}
        lines.setdefault(one.technique.family, []).append({**did, **one.facts()})
    stated = {fact.name: vars(fact) for fact in facts}
    return [_family(name, stated.get(name), lines.get(name, [])) for name in dict.fromkeys((*stated, *lines))]


def _family(name: str, fact: dict[str, Any] | None, lines: list[dict[str, Any]]) -> dict[str, Any]:
    if fact is not None and (fact["status"] == "active" or not lines):
        return {**fact, "techniques": lines}
    order = ("active", "dormant", "not applicable")
    best = min(lines, key=lambda line: order.index(line["status"]))
    if fact is not None and fact["status"] == best["status"]:
        return {**fact, "techniques": lines}
    head = {key: best[key] for key in ("category", "status", "exact", "reason")}
    return {"name": name, **head, "techniques": lines}
