"""Effects of techniques: what is no longer so where a technique's `apply` does nothing.

A module of this package registers one function per technique; `tests/optimizations/test_effects.py` runs each of them
twice, the second time with an `apply` that does nothing, and expects it to fail then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Tiny = Callable[[str], Path]
"""Name of a tiny llama (`inference_pio.models.llama.tests.case`) -> its checkpoint."""

Effect = Callable[[Tiny], None]
EFFECTS: dict[str, Effect] = {}


def effect_of(name: str) -> Callable[[Effect], Effect]:
    def register(effect: Effect) -> Effect:
        assert name not in EFFECTS, f"{name} has two effects"
        EFFECTS[name] = effect
        return effect

    return register
