"""Making a checkpoint's receipt: each approximate technique alone, layers that spoil it left out, then all together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import torch
from torch import Tensor

from inference_pio.benchmarks.divergence import Divergence, Probe, divergence, probes_of, worse
from inference_pio.benchmarks.fewest import fewest
from inference_pio.benchmarks.variant import Followed, Variant, alone, exactly, follow, open_for_tokens
from inference_pio.errors import ConfigError, ResourceError
from inference_pio.loader.identity import checkpoint_identity
from inference_pio.ops import native
from inference_pio.optimizations.quality import LEVELS, Level
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.plugin.registry import default_registry
from inference_pio.runtime.prompts import TextSide
from inference_pio.runtime.receipts import VERSION, Entry, Measured, Receipt, weights_word

# Sensitivity of layers is a ranking and a guess: little text is enough for it.
_RANKING_PROBES, _RANKING_TOKENS = 2, 32
_GROUPS = 8  # of layers at most, where a measurement is slow
_BY_LAYERS = "which layers it may act in is what is measured"
_WORTH_STEPPING_BACK = 100.0  # times the bound: what is further out no few layers spoil
Tell = Callable[[str], None]
"""Called in front of each measurement with what is measured."""


@dataclass
class Calibration:
    """One model's measurements. `run` is `follow`, unless a test knows the answers already; `idle_on_short` are the
    techniques that leave answers behind short prompts as they are.
    """

    model: str
    probes: Sequence[Probe]
    reference: Sequence[Tensor]
    tell: Tell
    run: Callable[[str, Variant, Sequence[Probe]], Followed] = follow
    idle_on_short: set[str] = field(default_factory=set)
    _ranked: dict[str, list[tuple[tuple[int, ...], float]]] = field(default_factory=dict)
    _stepped: dict[tuple[str, tuple[int, ...]], Divergence] = field(default_factory=dict)

    def measure(self, variant: Variant, what: str) -> tuple[Divergence, Followed]:
        """Against the reference, on all probes."""
        self.tell(what)
        found = self.run(self.model, variant, self.probes)
        return worse(self.reference, found.logits, self.probes), found

    def most_sensitive(self, name: str, layers: int) -> list[tuple[tuple[int, ...], float]]:
        """Layers, each with how far the technique in it alone moves answers, in nats; the worst first; measured once.

        On few short pieces; where the technique does nothing on those, on the first tokens behind the long one, and in
        groups of neighbours, because that takes its time.
        """
        if name not in self._ranked:
            chosen, size = self._telling(name, layers)
            probes = [replace(self.probes[i], answer=self.probes[i].answer[:_RANKING_TOKENS]) for i in chosen]
            self.tell(f"{name}, in no layer")
            without = self.run(self.model, Variant(), probes).logits
            moved = []
            for group in (tuple(range(first, min(first + size, layers))) for first in range(0, layers, size)):
                others = tuple(other for other in range(layers) if other not in group)
                self.tell(f"{name}, layer {_in_words(group)}")
                found = self.run(self.model, alone(name, others), probes).logits
                moved.append((group, divergence(without, found, probes).kl))
            self._ranked[name] = sorted(moved, key=lambda one: -one[1])
        return self._ranked[name]

    def layers_to_leave(
        self, name: str, level: Level, layers: int, base: float
    ) -> tuple[Divergence, tuple[int, ...]] | None:
        """The fewest layers, most sensitive first, without which a technique stays within a level; None: none do.

        Args:
            base: KL without the technique. What layers add to it is about the sum of what each adds: where the search
                begins.
        """
        ranked = self.most_sensitive(name, layers)
        most = len(ranked) - 1
        found: dict[int, Divergence] = {}

        def exempt(count: int) -> tuple[int, ...]:
            return tuple(sorted(layer for group, _ in ranked[:count] for layer in group))

        def keeps(count: int) -> bool:
            found[count] = self.stepped_back(name, exempt(count))
            return level.keeps(found[count].kl, found[count].top1)

        sums = [base + sum(moved for _, moved in ranked[count:]) for count in range(most + 1)]
        guess = next((count for count, kl in enumerate(sums) if kl <= level.max_kl), most)
        best = fewest(keeps, guess, 1, most)
        return None if best is None else (found[best], exempt(best))

    def stepped_back(self, name: str, exempt: tuple[int, ...]) -> Divergence:
        """With a technique in all but these layers; measured once."""
        if (name, exempt) not in self._stepped:
            found, _ = self.measure(alone(name, exempt), f"{name} without {len(exempt)} layers")
            self._stepped[name, exempt] = found
        return self._stepped[name, exempt]

    def _telling(self, name: str, layers: int) -> tuple[Sequence[int], int]:
        """The pieces on which a technique is ranked, and how many layers go together."""
        short = [i for i, probe in enumerate(self.probes) if len(probe.prompt) == len(self.probes[0].prompt)]
        if name in self.idle_on_short and len(short) < len(self.probes):
            return [len(self.probes) - 1], -(-layers // _GROUPS)
        return short[:_RANKING_PROBES], 1


def _in_words(layers: Sequence[int]) -> str:
    """Neighbours as 4 - 7."""
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]} - {layers[-1]}"


def calibrate(
    model: str,
    text: str,
    tell: Tell,
    *,
    plugin: str | None = None,
    dtype: str = "auto",
    quantize: str | None = None,
) -> Receipt:
    """Measure and decide; nothing is stored.

    Args:
        dtype, quantize: how the weights are to lie in memory; the receipt holds for that.

    Raises:
        UsageError: the text is too short.
        InferencePIOError: the model cannot be run here.
    """
    token_ids, identity, name, longest, layers = read_subject(model, text, plugin)
    probes = probes_of(token_ids, longest)
    weights = {"torch_dtype": dtype, "quantize": quantize}

    def run(model: str, variant: Variant, probes: Sequence[Probe]) -> Followed:
        return follow(model, replace(variant, options={**weights, **variant.options}), probes, plugin)

    reference, said = reference_logits(model, probes, run, tell)
    work = Calibration(model, probes, reference, tell, run)
    base, plain = work.measure(Variant(), "as it is, nothing approximate")
    found = _each_alone(work, plain.logits)
    entries = {
        level.name: _at_level(work, level, found, base, layers) for level in LEVELS.values() if level.max_kl
    }
    together = {level: _together(work, LEVELS[level], listed) for level, listed in entries.items()}
    return Receipt(
        version=VERSION,
        checkpoint=identity,
        weights=weights_word(dtype, quantize),
        model=name,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        kernels=native.ISA or "torch",
        reference=said,
        text=hashlib.sha256(text.encode()).hexdigest(),
        tokens=base.tokens,
        base=_measured(base),
        levels=entries,
        together=together,
    )


def read_subject(model: str, text: str, plugin: str | None) -> tuple[list[int], str, str, int, int]:
    """Token ids of the text; the checkpoint's identity, name, positions and layers."""
    opened = open_for_tokens(model)
    try:
        path = str(opened.source.path)
        made = default_registry().create(default_registry().choose(opened.raw, path, plugin).name)
        config = made.read_config(opened.raw, path)
        tokens = TextSide.of(opened, made.chat_format(config), False).tokenizer.encode(
            text, add_special_tokens=False
        )
        identity = checkpoint_identity(opened.checkpoint)
        return tokens, identity, opened.source.name, config.max_position_embeddings, config.num_hidden_layers
    finally:
        opened.checkpoint.close()


def reference_logits(
    model: str, probes: Sequence[Probe], run: Callable[[str, Variant, Sequence[Probe]], Followed], tell: Tell
) -> tuple[list[Tensor], str]:
    """Logits in float32; of a model that is too large for that, those it has with its weights as they are."""
    tell("the reference, in float32")
    try:
        return run(model, exactly(), probes).logits, "float32 weights and cache"
    except ResourceError:
        return run(model, Variant(), probes).logits, "weights as they are: float32 ones do not fit here"


def _each_alone(work: Calibration, plain: Sequence[Tensor]) -> dict[str, Divergence | str]:
    """What each approximate technique does, or why it cannot act here. `plain` are the logits without any."""
    found: dict[str, Divergence | str] = {}
    for name, technique in TECHNIQUES.items():
        if technique.exact or technique.on_request:
            continue
        if technique.needs_receipt:
            found[name] = _BY_LAYERS
            continue
        work.tell(name)
        try:
            followed = work.run(work.model, alone(name), work.probes)
        except ConfigError as error:
            found[name] = str(error)
            continue
        moved = worse(work.reference, followed.logits, work.probes) if followed.logits else None
        found[name] = moved or followed.reasons[name]
        if followed.logits and torch.equal(plain[0], followed.logits[0]):
            work.idle_on_short.add(name)
    return found


def _at_level(
    work: Calibration, level: Level, found: Mapping[str, Divergence | str], base: Divergence, layers: int
) -> dict[str, Entry]:
    entries = {}
    for name, measured in found.items():
        if measured is _BY_LAYERS:
            entries[name] = _entry_by_layers(work, name, level, base, layers)
        elif isinstance(measured, Divergence):
            entries[name] = _entry(work, name, level, measured, base, layers)
    return entries


def _entry_by_layers(work: Calibration, name: str, level: Level, base: Divergence, layers: int) -> Entry:
    """In the layers that stand it, or refused: what decides then is the one that stands it best."""
    if outside := level.violation(base.kl, base.top1):
        return Entry(_measured(base), reason=f"without it already {outside}")
    if left := work.layers_to_leave(name, level, layers, base.kl):
        return Entry(_measured(left[0]), left[1])
    others = tuple(sorted(layer for group, _ in work.most_sensitive(name, layers)[:-1] for layer in group))
    least = work.stepped_back(name, others)
    violation = level.violation(least.kl, least.top1)
    return Entry(_measured(least), others, f"in the layer that stands it best, {violation}")


def _entry(
    work: Calibration, name: str, level: Level, found: Divergence, base: Divergence, layers: int
) -> Entry:
    """As it is, or with the layers left out that spoil it, or refused."""
    violation = level.violation(found.kl, found.top1)
    if not violation:
        return Entry(_measured(found))
    if outside := level.violation(base.kl, base.top1):
        return Entry(_measured(found), reason=f"without it already {outside}")
    within_reach = TECHNIQUES[name].by_layer and found.kl < _WORTH_STEPPING_BACK * level.max_kl
    if within_reach and (better := work.layers_to_leave(name, level, layers, base.kl)):
        return Entry(_measured(better[0]), better[1])
    return Entry(_measured(found), reason=violation)


def _together(work: Calibration, level: Level, entries: dict[str, Entry]) -> Measured:
    """All that are allowed, at once; while that is over the bound, the one that moves most leaves `entries`."""
    while True:
        allowed = {name: entry.exempt for name, entry in entries.items() if not entry.reason}
        measured, followed = work.measure(Variant(allowed), f"all of level {level.name}")
        violation = level.violation(measured.kl, measured.top1)
        acting = sorted(followed.active & set(allowed), key=lambda name: -entries[name].measured.kl)
        if not violation or not acting:
            return _measured(measured)
        worst = entries[acting[0]]
        others = f"with {', '.join(acting[1:])}" if acting[1:] else "on top of the weights' blocks"
        reason = f"KL {worst.measured.kl:.2g} alone, and {others}: {violation}"
        entries[acting[0]] = Entry(worst.measured, worst.exempt, reason)


def _measured(found: Divergence) -> Measured:
    return Measured(found.kl, found.top1, found.perplexity)
