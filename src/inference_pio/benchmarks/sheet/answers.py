"""What a loaded model answers to a calibration text, held against reference logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

from torch import Tensor

from inference_pio.benchmarks.calibration import reference_logits
from inference_pio.benchmarks.divergence import Probe, divergence, probes_of
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.sheet.record import Quality
from inference_pio.benchmarks.variant import Followed, Variant, follow
from inference_pio.optimizations.technique import Technique

_FEW, _FEW_TOKENS = 4, 16
_SHORT = 8
# So many times as long as the usual model takes for few tokens, and so many seconds: then there are no more.
_SLOW, _MOMENT = 4.0, 2.0
Size = Literal["few", "short", "long"]


@dataclass(frozen=True)
class _Answer:
    logits: list[Tensor]
    seconds: float


@dataclass
class Asked:
    """Text in three sizes, and the reference's logits on each.

    few    a handful of tokens behind short prompts: what even the slowest technique can answer
    short  more of the same
    long   those, and a long prompt, where the model has room for one: what acts on long texts shows there
    """

    probes: dict[Size, list[Probe]]
    reference: dict[Size, list[Tensor]]
    said: str
    _kept: WeakKeyDictionary[LoadedModel, dict[Size, _Answer]] = field(default_factory=WeakKeyDictionary)
    _usual_seconds: float = 0.0

    @classmethod
    def of(
        cls,
        model: str,
        plugin: str,
        token_ids: Sequence[int],
        max_model_len: int,
        tell: Callable[[str], None],
        *,
        quick: bool,
    ) -> Asked:
        """Ask the reference.

        Raises:
            UsageError: the text is too short.
        """
        every = probes_of(token_ids, max_model_len)
        short = [probe for probe in every if len(probe.prompt) == len(every[0].prompt)][:_SHORT]
        few = [Probe(probe.prompt, probe.answer[:_FEW_TOKENS]) for probe in short[:_FEW]]
        probes: dict[Size, list[Probe]] = {"few": few}
        if not quick:
            long = [probe for probe in every if len(probe.prompt) > len(short[0].prompt)]
            probes |= {"short": short, "long": [*short, *long]}

        def run(model: str, variant: Variant, probes: Sequence[Probe]) -> Followed:
            return follow(model, variant, probes, plugin)

        largest = probes.get("long", few)
        logits, said = reference_logits(model, largest, run, tell)
        reference = {
            size: [rows[: len(probe.answer)] for rows, probe in zip(logits, asked, strict=False)]
            for size, asked in probes.items()
        }
        return cls(probes, reference, said)

    @property
    def longest(self) -> int:
        return max(len(one.prompt) + len(one.answer) for asked in self.probes.values() for one in asked)

    def quality(self, technique: Technique, with_it: LoadedModel, without: LoadedModel) -> Quality:
        """Of as many tokens as the technique's kind and the pace of the slower side allow."""
        size: Size = "few"
        found, before = self._of(with_it, size), self._of(without, size)
        slowest = max(found.seconds, before.seconds)
        if "long" in self.probes and slowest < _MOMENT + _SLOW * self._usual_seconds:
            size = "short" if technique.exact else "long"
            found, before = self._of(with_it, size), self._of(without, size)
        probes, reference = self.probes[size], self.reference[size]
        now, then = divergence(reference, found.logits, probes), divergence(reference, before.logits, probes)
        return Quality(
            now.tokens,
            now.kl,
            now.kl_error,
            now.top1,
            now.perplexity,
            then.kl,
            then.top1,
            then.perplexity,
            divergence(before.logits, found.logits, probes).kl,
        )

    def keep(self, model: LoadedModel) -> None:
        """Remember what this one answers: it is compared with several. The first one's pace is the usual one."""
        self._kept[model] = {}
        if not self._usual_seconds:
            self._of(model, "few")  # the first time
            self._usual_seconds = self._answer(model, "few").seconds

    def _of(self, model: LoadedModel, size: Size) -> _Answer:
        kept = self._kept.get(model)
        if kept is None:
            return self._answer(model, size)
        if size not in kept:
            kept[size] = self._answer(model, size)
        return kept[size]

    def _answer(self, model: LoadedModel, size: Size) -> _Answer:
        began = time.perf_counter()
        logits = model.follow(self.probes[size])
        return _Answer(logits, time.perf_counter() - began)
