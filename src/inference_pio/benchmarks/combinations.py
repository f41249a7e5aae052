"""Every pair of techniques in one small model, through the engine: do they give the answers that they should?"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from inference_pio import __version__
from inference_pio.benchmarks.divergence import Divergence, Probe, divergence
from inference_pio.benchmarks.variant import Followed, Variant, follow
from inference_pio.errors import ConfigError, ResourceError, UsageError
from inference_pio.optimizations.combinations import VERSION, Combinations, Pair, names_of
from inference_pio.optimizations.registry import TECHNIQUES

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_LONG, _SHARED, _SHORT, _ANSWER = 1400, 256, 320, 12  # tokens
_SAME = 1e-5  # nats: rounding in another order
_PART = 0.25  # of what an approximate technique moves: what rounding before it may change of that
_NO_WORSE = 1.5  # times what the approximate one moves: answers that are other ones, as good
_TIMES, _LEAST = 4.0, 0.05  # two approximate ones: times the sum of what each moves, and nats in any case
_USUAL = {
    "torch_dtype": "float32",
    "block_size": 16,
    "max_num_seqs": 2,  # a later prompt finds what an earlier one left
    "kv_cache_memory_gb": 0.05,
    "allow_untested": True,
}
# What suits a small model in place of the technique's own values.
_SMALL: Mapping[str, Mapping[str, Any]] = {
    "shorter_vocabulary": {"keep_vocabulary": 1024},
    "prefix_disk_tier": {"prefix_cache_disk_gb": 0.05},
    "bounded_logits": {"max_num_seqs": 65},  # one row more than a piece
    "disk_offload": {"experts": "auto"},  # which has no experts
}
_TWICE = "prefix_disk_tier"  # the second run finds what the first one left on the disk


@dataclass(frozen=True)
class Base:
    """A model, and options under which techniques can act that elsewhere cannot."""

    name: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass
class PairRuns:
    """Runs of small models, each once.

    bases    tried in order; each has four layers at least, 2,048 positions and a vocabulary of more than 2,048 tokens
    tell     called before each pair
    """

    bases: Sequence[Base]
    tell: Callable[[str], None]
    _runs: dict[tuple[str, frozenset[str]], Followed | str] = field(default_factory=dict)

    def all(self) -> Combinations:
        names = list(TECHNIQUES)
        date = datetime.now(UTC).date().isoformat()
        pairs = {f"{one} {other}": self.pair(one, other) for one, other in names_of(names)}
        return Combinations(VERSION, date, __version__, names, pairs)

    def pair(self, one: str, other: str) -> Pair:
        """What becomes of two together."""
        self.tell(f"{one}, {other}")
        if other in TECHNIQUES[one].conflicts or one in TECHNIQUES[other].conflicts:
            return Pair("excluded", reason="they exclude each other")
        why = ""
        for base in self.bases:
            if all(isinstance(self._run(base, {name}), Followed) for name in (one, other)):
                found = self._run(base, {one, other})
                if isinstance(found, Followed):
                    return self._judge(base, one, other, found)
                why = why or found
        for name in (one, other):
            alone = [self._run(base, {name}) for base in self.bases]
            if not any(isinstance(run, Followed) for run in alone):
                return Pair("untested", reason=f"{name} alone: {alone[0]}")
        return Pair("never", reason=why or "no model has both at work")

    def _judge(self, base: Base, one: str, other: str, found: Followed) -> Pair:
        if not all(bool(logits.isfinite().all()) for logits in found.logits):
            return Pair("failed", reason="logits that are not finite")
        plain = self._run(base, set())
        assert isinstance(plain, Followed), f"{base.name} runs without any technique named"
        approximate = [name for name in (one, other) if not TECHNIQUES[name].exact]
        moves = [self._moved(plain, self._run(base, {name})) for name in approximate]
        if len(approximate) == 2:
            bound = _TIMES * sum(move.kl for move in moves) + _LEAST
            return self._within(self._moved(plain, found), bound, "bounded")
        if approximate:
            bound = max(_SAME, _PART * moves[0].kl)
            pair = self._within(self._moved(self._run(base, {*approximate}), found), bound, "equal")
            if pair.outcome == "equal":
                return pair
            # Other numbers are rounded: no further off than those of the approximate one alone are.
            return self._within(self._moved(plain, found), _NO_WORSE * moves[0].kl, "bounded")
        return self._within(self._moved(plain, found), _SAME, "equal")

    @staticmethod
    def _within(moved: Divergence, bound: float, outcome: Any) -> Pair:
        kl = float(f"{moved.kl:.2g}")
        if moved.kl <= bound:
            return Pair(outcome, kl)
        return Pair("failed", kl, f"answers move by KL {moved.kl:.2g}, above {bound:.2g}")

    def _moved(self, before: Followed | str, after: Followed | str) -> Divergence:
        assert isinstance(before, Followed), before
        assert isinstance(after, Followed), after
        return divergence(before.logits, after.logits, _probes())

    def _run(self, base: Base, names: set[str]) -> Followed | str:
        """With techniques by name beside what is usual; why not, where they are not all at work."""
        plain = self._once(base, frozenset()) if names else None
        usual = plain.active if isinstance(plain, Followed) else frozenset()
        # What is at work anyway makes no other run.
        found = self._once(base, frozenset(names) - usual)
        if isinstance(found, Followed) and (idle := sorted(names - found.active)):
            return f"{idle[0]}: {found.reasons[idle[0]]}"
        return found

    def _once(self, base: Base, names: frozenset[str]) -> Followed | str:
        key = (base.name, names)
        if key not in self._runs:
            self._runs[key] = _follow(base, names)
        return self._runs[key]


def _follow(base: Base, names: frozenset[str]) -> Followed | str:
    ordered = [name for name in TECHNIQUES if name in names]
    options: dict[str, Any] = {**_USUAL, **base.options}
    for name in ordered:
        technique = TECHNIQUES[name]
        options |= {**dict.fromkeys(technique.flags, True), **technique.on, **_SMALL.get(name, {})}
    options["enable"] = tuple(ordered)
    # A layer is left out, which the receipt would say.
    approximate = {name: (0, 1, 3) if name == "skipped_layers" else () for name in ordered}
    try:
        for _ in range(2 if _TWICE in names else 1):
            found = follow(str(base.path), Variant(approximate, options), _probes())
    except (ConfigError, ResourceError, UsageError) as error:
        return str(error)
    return found


def _probes() -> list[Probe]:
    """A prompt longer than what any technique keeps of one, and two that begin alike."""
    draw = random.Random(7)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(256) for _ in range(count)]

    shared = tokens(_SHARED)
    return [
        Probe(tokens(_LONG), tokens(_ANSWER)),
        Probe(shared + tokens(_SHORT - _SHARED), tokens(_ANSWER)),
        Probe(shared + tokens(_SHORT - _SHARED), tokens(_ANSWER)),
        Probe(shared + tokens(_SHORT - _SHARED), tokens(_ANSWER)),
    ]
