"""A plan that fits: what a model can do without, from what costs nothing to what costs the most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from inference_pio.config import BaseModelConfig
from inference_pio.errors import InferencePIOError, ResourceError
from inference_pio.optimizations.quality import Grant
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.paging import USEFUL_CONTEXT
from inference_pio.runtime.plan import MemoryPlan
from inference_pio.runtime.prepared import Prepared

# A configuration and options, planned.
Prepare = Callable[[BaseModelConfig, RuntimeOptions], Prepared]
# What a receipt says of a technique that rounds keys and values, or weights; None: there is no receipt.
Word = Callable[[str, RuntimeOptions], Grant | None]

_FEW_SEQUENCES, _SHORT_STEP = 4, 128  # as the profile "memory" has them
_WORTH = 1.25  # times the context: less is not worth giving something up for
WAYS = 'LLM(fit=True), --fit or manage_resources(plugin, "optimize")'


@dataclass(frozen=True)
class Rung:
    """One thing to do without: `options` and `config` are what it changes, `reason` says what becomes of what."""

    technique: str
    reason: str
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A rung that was taken, and the least memory that the model needed before and after."""

    technique: str
    reason: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Fitted:
    """prepared  what fits
    asked     the same as it was asked for
    steps     what was done to it, in order; empty where it fitted
    left_out  technique -> why it was not tried, or did not help
    """

    prepared: Prepared
    asked: Prepared
    steps: tuple[Step, ...]
    left_out: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {
            "applied": [vars(step) for step in self.steps],
            "left_out": dict(self.left_out),
            "before": _figures(self.asked.plan),
            "after": _figures(self.prepared.plan),
            "fits": self.prepared.plan.fits,
        }

    def in_words(self) -> str:
        """In one line; empty where nothing had to be done."""
        return f"made to fit: {self.changes()}" if self.steps else ""

    def changes(self) -> str:
        done = "; ".join(step.reason for step in self.steps)
        return f"{done}; context {self.prepared.plan.max_model_len:,} tokens"


def prepared_to_fit(prepare: Prepare, config: BaseModelConfig, options: RuntimeOptions, word: Word) -> Fitted:
    """The plan that was asked for, or with `options.fit` one that fits.

    Raises:
        ResourceError: it does not fit, with what would: with what `fit` would do, or with the least memory for that.
        InferencePIOError: the model cannot be planned.
    """
    asked = prepare(config, options)
    if asked.plan.fits and not options.fit:
        return Fitted(asked, asked, (), {})
    fitted = _Descent(prepare, asked, config, options, word).run()
    if options.fit:
        return fitted
    advice = f"{asked.plan.advice()}; " if asked.plan.advice().startswith("with ") else ""
    raise ResourceError(
        f"{asked.config.model_name} does not fit: {asked.plan.sum_text()}; {advice}{WAYS} makes it fit: "
        f"{fitted.changes()}"
    )


class _Descent:
    """The way down, to the first plan that fits with a context of use, else to the one with the longest context.

    The order: a cache as large as the memory allows, fewer sequences at once, no guesses, shorter steps; then what the
    checkpoint's receipts call faithful, int8 keys and values and weights in fewer bits; then layers on the disk, which
    cost time; then a shorter context than was asked for. What no receipt says anything of comes last, where nothing
    else fits, and what they call unfaithful never.
    """

    def __init__(
        self, prepare: Prepare, asked: Prepared, config: BaseModelConfig, options: RuntimeOptions, word: Word
    ) -> None:
        self._prepare, self._asked, self._word = prepare, asked, word
        self._config, self._options = config, options
        self._goal = options.max_model_len or min(USEFUL_CONTEXT, asked.plan.positions)
        by_itself = config.device_map == "auto" and options.resident_weights_gb is None
        self._paging = by_itself and options.experts != "disk" and bool(asked.plan.paged or asked.plan.mapped)
        self._here = asked
        self._steps: list[Step] = []
        self._left_out: dict[str, str] = {}
        self._unfaithful: list[str] = []
        self._least = asked.plan.least
        self._best: tuple[Prepared, tuple[Step, ...]] | None = None

    def run(self) -> Fitted:
        """
        Raises:
            ResourceError: nothing fits, with the least that would.
        """
        self._consider(self._asked)
        if self._paging:
            self._stay_in_memory()
        for rungs in (self._first(), self._unmeasured()):
            for rung in rungs:
                if self._is_enough():
                    break
                self._take(rung)
            if self._best is not None:
                prepared, steps = self._best
                return Fitted(prepared, self._asked, steps, self._left_out)
        raise self._refusal()

    def _is_enough(self) -> bool:
        return self._best is not None and _context(self._best[0]) >= self._goal

    def _stay_in_memory(self) -> None:
        """What costs less than layers on the disk is tried without them."""
        self._best = None
        self._config = replace(self._config, device_map="cpu")
        self._options = replace(self._options, experts="memory")
        self._here = self._prepare(self._config, self._options)

    def _first(self) -> Iterator[Rung]:
        options = self._options
        if options.kv_cache_memory_gb is not None:
            given = f"keys and values have what memory is left, not {options.kv_cache_memory_gb:g} GB"
            yield Rung("kv_cache_size", given, {"kv_cache_memory_gb": None})
        if options.max_num_seqs > _FEW_SEQUENCES or options.speculation:
            # Together: a guess takes a row of logits as a sequence does, and rows are bounded.
            few = min(options.max_num_seqs, _FEW_SEQUENCES)
            fewer = (
                f"{few} sequences at once, not {options.max_num_seqs}, " if few < options.max_num_seqs else ""
            )
            without = {"max_num_seqs": few, "speculation": 0, "mtp": False}
            yield Rung("fewer_sequences", f"{fewer}no guesses", without)
        if options.max_num_batched_tokens > _SHORT_STEP:
            shorter = f"steps of {_SHORT_STEP} tokens, not {options.max_num_batched_tokens}"
            yield Rung("shorter_steps", shorter, {"max_num_batched_tokens": _SHORT_STEP})
        if (many := self._options.max_num_seqs) > 1:
            yield Rung("fewer_sequences", f"one sequence at once, not {many}", {"max_num_seqs": 1})
        if options.quality != "exact":
            yield from self._granted()
        if self._paging:
            what = "what does not fit is read from the disk"
            yield Rung("disk_offload", what, {"experts": "auto"}, {"device_map": "auto"})
        if options.max_model_len is not None and self._best is None:
            yield Rung("shorter_context", "a shorter context", {"max_model_len": None})

    def _granted(self) -> Iterator[Rung]:
        for rung in _rounding(asked=False):
            if (why := self._cannot(rung.technique)) is not None:
                self._left_out[rung.technique] = why
                continue
            grant = self._word(rung.technique, replace(self._options, **rung.options))
            if grant is None:
                self._left_out[rung.technique] = "not measured on this checkpoint: inference-pio calibrate"
            elif not grant.allowed:
                self._left_out[rung.technique] = grant.reason
                self._unfaithful.append(
                    f"{rung.technique} would leave quality {self._options.quality}: {grant.reason}"
                )
            else:
                yield replace(rung, reason=f"{rung.reason} ({grant.reason})")

    def _unmeasured(self) -> Iterator[Rung]:
        if self._options.quality == "exact":
            return
        for rung in _rounding(asked=True):
            grant = self._word(rung.technique, replace(self._options, **rung.options))
            if grant is None and self._cannot(rung.technique) is None:
                yield replace(rung, reason=f"{rung.reason} (what that does to answers was not measured)")

    def _cannot(self, technique: str) -> str | None:
        if technique in self._options.disable:
            return "switched off by name"
        if technique.startswith("weights") and self._asked.packing.kinds:
            return "the weights are in blocks already"
        return None

    def _take(self, rung: Rung) -> None:
        config, options = replace(self._config, **rung.config), replace(self._options, **rung.options)
        try:
            made = self._prepare(config, options)
        except InferencePIOError as error:
            self._left_out[rung.technique] = str(error)
            return
        before, after = self._here.plan, made.plan
        smaller = after.least < before.least or after.kv_bytes_per_token < before.kv_bytes_per_token
        smaller |= not before.fits and after.total < before.total
        if not smaller and _context(made) <= _context(self._here):
            self._left_out.setdefault(rung.technique, "it would not help")
            return
        self._left_out.pop(rung.technique, None)
        self._config, self._options, self._here = config, options, made
        self._steps.append(Step(rung.technique, rung.reason, before.least, after.least))
        self._least = min(self._least, after.least)
        self._consider(made)

    def _consider(self, made: Prepared) -> None:
        if made.plan.fits and (self._best is None or _context(made) > _WORTH * _context(self._best[0])):
            self._best = made, tuple(self._steps)

    def _refusal(self) -> ResourceError:
        plan, name = self._asked.plan, self._asked.config.model_name
        why = f" ({'; '.join(self._unfaithful)})" if self._unfaithful else ""
        return ResourceError(
            f"{name} does not fit: {plan.sum_text()}; it needs {_up(self._least)} GB at least: raise the limit or "
            f"take a smaller model{why}"
        )


def _rounding(*, asked: bool) -> Iterator[Rung]:
    """What rounds, in the order of what it costs; `asked` for by name it needs no receipt."""
    compressed = {"use_kv_cache_compression": True, "kv_cache_quantization_bits": 8}
    kept = {"kv_cache_dtype": "int8" if asked else "auto"}
    yield Rung("kv_int8", "keys and values in 8 bits", kept, compressed)
    yield Rung("weights_int8", "weights in 8 bits", {"quantize": "int8"}, {"torch_dtype": "auto"})
    yield Rung("weights_int4", "weights in 4 bits", {"quantize": "int4"}, {"torch_dtype": "auto"})


def _context(made: Prepared) -> int:
    return made.plan.max_model_len if made.plan.fits else 0


def _figures(plan: MemoryPlan) -> dict[str, Any]:
    return {**plan.as_dict(), "sum": plan.sum_text()}


def _up(count: int) -> str:
    return f"{-(-count // 10**7) / 100:.2f}"
