"""Every technique that can act, in turns with the same model without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from inference_pio.benchmarks.calibration import read_subject
from inference_pio.benchmarks.choices import PowerChoice
from inference_pio.benchmarks.command import QUICK, Settings
from inference_pio.benchmarks.environment import environment
from inference_pio.benchmarks.harness import Timed, interleave
from inference_pio.benchmarks.impact import OFF, ON, equal_answers, reason_of, switched
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.samples import CONFIDENCE
from inference_pio.benchmarks.sheet.answers import Asked
from inference_pio.benchmarks.sheet.record import VERSION, Compared, Line, Sheet, compared
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.errors import ConfigError, ResourceError, UsageError
from inference_pio.metrics.memory import process_bytes
from inference_pio.metrics.power import Meter
from inference_pio.optimizations.choice import CannotAct
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.optimizations.technique import Kind, Technique
from inference_pio.optimizations.text import usual_text
from inference_pio.outputs import RequestOutput
from inference_pio.runtime.allocator import release_memory
from inference_pio.runtime.performance import meter_for

_ROUNDS = 8
_ENOUGH = 5  # pairs: fewer tell nothing at the usual confidence
_SECONDS = 5.0  # of rounds for each technique: all of them then end within minutes
_SLOW_PAIR, _SLOW_ROUNDS = 5.0, 2  # seconds; what takes so long gets less work, and if need be fewer rounds
_ENDLESS_PAIR = 30.0  # seconds of the least work: one pair of it, and no text is answered
_TOKENS = 8  # of an answer at least: between them lies the time per token
_INSTANT = 1e-9
_EACH = 1_000_000  # numbers of rounds for each technique

# What was answered, and the joules that it took by the meter, NaN where there is none.
_Worked = tuple[list[RequestOutput], float]
_Runs = dict[str, list[Timed[_Worked]]]


@dataclass(frozen=True)
class _Turns:
    """Runs of both sides in turns, of that work; a pair took so many seconds."""

    runs: _Runs
    work: Workload
    pair: float


@dataclass(frozen=True)
class _Ready:
    """A loaded model, and by how many bytes the process grew while it was loaded and did its first work."""

    model: LoadedModel
    grown: int


def check_techniques(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once.

    Raises:
        UsageError: one of them is no technique.
    """
    if unknown := sorted(set(names) - set(TECHNIQUES)):
        raise UsageError(f"no technique is called {unknown[0]!r}; there are {', '.join(TECHNIQUES)}")
    return tuple(dict.fromkeys(names))


class Measuring:
    """A sheet in the making: `sheet` may be called at any time, for what is there by then.

    Args:
        suite: whose model, and what work shows what.
        settings: what the caller chose; `techniques` are the lines, all where empty.
    """

    def __init__(self, suite: Suite, settings: Settings) -> None:
        self._suite, self._settings = suite, settings
        wanted = set(check_techniques(settings.techniques) or TECHNIQUES)
        self._wanted = [one for one in TECHNIQUES.values() if one.name in wanted]
        self._lines: list[Line] = []
        self._began, self._date = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        self._name = self._identity = self._reference = ""
        self._asked: Asked | None = None
        # Of the latest model with options of a technique's own, beside the usual one.
        self._bases = ExitStack()
        self._base: tuple[Mapping[str, Any], _Ready] | None = None

    def run(self) -> None:
        """Measure line by line."""
        settings = self._settings
        subject, plugin = settings.model or self._suite.model, self._suite.plugin
        self._tell(0, "the reference")
        tokens, self._identity, self._name, positions, _ = read_subject(subject, usual_text(), plugin)
        self._asked = Asked.of(subject, plugin, tokens, positions, lambda _: None, quick=settings.quick)
        self._reference = self._asked.said
        with self._load({}):
            pass  # what the first model leaves behind, kernels' working memory above all, is no later one's growth
        with self._load({}) as usual, self._bases:
            self._asked.keep(usual.model)
            for done, technique in enumerate(self._wanted):
                self._tell(done, technique.name)
                self._lines.append(self._line(technique, usual))
        self._tell(len(self._wanted), "done")

    def sheet(self, options: Mapping[str, Any], command: str) -> Sheet:
        """What there is; `options` is what the caller set, `command` how to make it again."""
        notes = [
            f"ratio: how many times better with the technique, per pair of runs; 'cannot tell' where the "
            f"{CONFIDENCE:.0%} interval of its median holds 1 or there are too few pairs",
            "prompts are random tokens; answers are compared on the package's calibration text",
            "of figures that a technique does not touch, about one in ten is told to be better or worse by chance",
            f"where the least work takes both sides more than {_ENDLESS_PAIR:g} s, one pair is run and no text is "
            "answered",
        ]
        return Sheet(
            version=VERSION,
            date=self._date,
            model=self._name or self._settings.model or self._suite.model,
            plugin=self._suite.plugin,
            checkpoint=self._identity,
            reference=self._reference,
            options=dict(options),
            machine=environment(),
            command=command,
            lines=list(self._lines),
            left=[one.name for one in self._wanted[len(self._lines) :]],
            notes=notes + ([QUICK] if self._settings.quick else []),
            seconds=time.perf_counter() - self._began,
        )

    def _tell(self, done: int, what: str) -> None:
        # One bar over all techniques; what is measured in one of them has none of its own.
        self._settings.on_round(done, len(self._wanted), f"report, {what}")

    def _work(self, kind: Kind) -> Workload:
        work = self._settings.size(self._suite.showing(kind))
        work = replace(work, output_len=max(_TOKENS, work.output_len))
        return work if self._suite.context is None else work.within(self._suite.context)

    @contextmanager
    def _load(self, changes: Mapping[str, Any]) -> Iterator[_Ready]:
        assert self._asked is not None, "the text is read first"
        work = [self._work(kind) for kind in {one.shows_on for one in self._wanted}]
        release_memory()  # what earlier work has freed must not be what this one grows into
        before = process_bytes()
        with self._settings.load(
            self._suite, *work, Workload(self._asked.longest - 1, 1), changes=changes
        ) as model:
            model.run(min(work, key=lambda one: (one.prompt_tokens, one.output_tokens)), -1)
            yield _Ready(model, process_bytes() - before)

    def _with_options(self, both: Mapping[str, Any]) -> _Ready:
        """A model with these options and no technique switched: for several lines in a row, which compare with it."""
        assert self._asked is not None, "the text is read first"
        if self._base is None or self._base[0] != both:
            self._base = None
            self._bases.close()
            self._base = (both, self._bases.enter_context(self._load(both)))
            self._asked.keep(self._base[1].model)
        return self._base[1]

    def _line(self, technique: Technique, usual: _Ready) -> Line:
        """Both models: one that is there, where it has the technique, or has not, and another one."""
        with ExitStack() as models:
            try:
                base = self._with_options(technique.both) if technique.both else usual
                stands = next(one for one in base.model.techniques if one.technique.name == technique.name)
                if stands.standing.status == "not applicable":
                    return _unmeasured(technique, "not applicable", stands.standing.reason)
                with_it, without = (
                    base
                    if stands.active is on and _is_so(base.model, technique, on)
                    else models.enter_context(self._load(switched(technique, self._settings, on)))
                    for on in (True, False)
                )
            except (ConfigError, ResourceError) as error:
                at_all = not isinstance(error, CannotAct) or error.status == "dormant"
                return _unmeasured(technique, "dormant" if at_all else "not applicable", reason_of(error))
            return self._measured(technique, with_it, without)

    def _measured(self, technique: Technique, with_it: _Ready, without: _Ready) -> Line:
        assert self._asked is not None, "the text is read first"
        meter = meter_for(with_it.model.device)
        both = {ON: with_it.model, OFF: without.model}
        turns = self._rounds(self._work(technique.shows_on), meter, _EACH * (1 + len(self._lines)), both)
        runs, work = turns.runs, turns.work
        energy, note = _energy(runs, work, meter, self._settings.power)
        now = {one.technique.name: one for one in with_it.model.techniques}[technique.name]
        return Line(
            name=technique.name,
            title=technique.title,
            category=technique.category,
            exact=technique.exact,
            status="measured",
            reason=now.standing.reason,
            work=str(work),
            under=", ".join(f"{name}={value}" for name, value in technique.both.items()),
            rounds=len(runs[ON]),
            first_token=_of(runs, "ms", _first_token),
            per_token=_of(runs, "ms", _per_token),
            throughput=compared(
                "tokens/s",
                *([run.seconds for run in runs[key]] for key in (ON, OFF)),
                rate=work.output_tokens,
            ),
            planned_bytes=(with_it.model.plan.total, without.model.plan.total),
            resident_bytes=(with_it.grown, without.grown) if min(with_it.grown, without.grown) > 0 else None,
            energy=energy,
            energy_note=note,
            equal_answers=equal_answers(*([_answers(run) for run in runs[key]] for key in (ON, OFF))),
            quality=self._asked.quality(technique, with_it.model, without.model)
            if turns.pair < _ENDLESS_PAIR
            else None,
        )

    def _rounds(self, work: Workload, meter: Meter, first: int, both: Mapping[str, LoadedModel]) -> _Turns:
        """As many as the time allows, in turns. Of their prompts the prefix cache has what the work says is known."""

        def once(model: LoadedModel) -> Callable[[int], _Worked]:
            def run(turn: int) -> _Worked:
                start = meter.read() if meter.available else None
                found = model.run(work, first + turn)
                return found, meter.joules(start, meter.read()) if meter.available else float("nan")

            return run

        runs = {name: once(model) for name, model in both.items()}
        if work.known_len:
            for run in runs.values():
                run(-2)  # after which it is known
        began = time.perf_counter()
        interleave(runs, rounds=0, warmup=1)
        pair = time.perf_counter() - began
        if pair > _SLOW_PAIR and (smaller := _smaller(work, pair)) != work:
            return self._rounds(smaller, meter, first, both)
        usual = _ENOUGH if pair < _SLOW_PAIR else _SLOW_ROUNDS if pair < _ENDLESS_PAIR else 1
        usual = max(usual, int(_SECONDS / pair))
        rounds = self._settings.rounds or min(self._settings.count(_ROUNDS), usual)
        return _Turns(interleave(runs, rounds=rounds, warmup=0), work, pair)


def _smaller(work: Workload, pair: float) -> Workload:
    """A quarter of the prompts and half of each answer; where there is one prompt, or two that share, a quarter of its
    length. The least of all at once where a pair of runs took much too long. What is known stays: it costs nothing.
    """
    part = 4 if pair < 4 * _SLOW_PAIR else work.prompt_tokens
    fewer = max(2 if work.shared_len else 1, work.concurrency // part)
    shorter = 1 if work.known_len or (fewer < work.concurrency and part == 4) else part
    prompt = max(min(16, work.prompt_len), work.prompt_len // shorter)
    return replace(
        work,
        output_len=max(_TOKENS, work.output_len // min(part, 2)),
        prompt_len=prompt,
        shared_len=work.shared_len * prompt // work.prompt_len,
        concurrency=fewer,
    )


def _unmeasured(technique: Technique, status: Literal["dormant", "not applicable"], reason: str) -> Line:
    return Line(
        name=technique.name,
        title=technique.title,
        category=technique.category,
        exact=technique.exact,
        status=status,
        reason=reason,
    )


def _is_so(model: LoadedModel, technique: Technique, on: bool) -> bool:
    """Whether a model has the options under which a technique acts, or does not."""
    named = technique.on if on else technique.off
    values = {**vars(model.plugin.config), **vars(model.options)}
    return all(values[name] == value for name, value in named.items() if name != "enable")


def _answers(run: Timed[_Worked]) -> Timed[list[RequestOutput]]:
    return Timed(run.seconds, run.cpu_seconds, run.result[0])


def _of(runs: _Runs, unit: str, read: Callable[[RequestOutput], float]) -> Compared:
    """The mean over a run's requests, in milliseconds."""

    def costs(timed: Sequence[Timed[_Worked]]) -> list[float]:
        return [1000 * sum(map(read, run.result[0])) / len(run.result[0]) for run in timed]

    return compared(unit, costs(runs[ON]), costs(runs[OFF]))


def _first_token(output: RequestOutput) -> float:
    assert output.metrics is not None, "the engine measures each request"
    return max(_INSTANT, output.metrics.time_to_first_token)


def _per_token(output: RequestOutput) -> float:
    """From the first token to the last: the prompt's share is not decoding."""
    assert output.metrics is not None, "the engine measures each request"
    passed = output.metrics.time_total - output.metrics.time_to_first_token
    return max(_INSTANT, passed / max(1, len(output.outputs[0].token_ids) - 1))


def _energy(runs: _Runs, work: Workload, meter: Meter, power: PowerChoice) -> tuple[Compared | None, str]:
    """Joules per token as the machine counts them, else an estimate that says so."""
    if meter.available:
        joules = [[run.result[1] for run in runs[key]] for key in (ON, OFF)]
        if all(0 < one < float("inf") for side in joules for one in side):
            per_token = ([one / work.output_tokens for one in side] for side in joules)
            return compared("J/token", *per_token), meter.covers
        return None, f"unavailable: {meter.covers} counted nothing in so short a time"
    if not power.watts_per_core:
        return None, f"unavailable: {meter.reason}"
    costs = (
        [max(_INSTANT, run.cpu_seconds * power.watts_per_core / work.output_tokens) for run in runs[key]]
        for key in (ON, OFF)
    )
    note = f"estimate, not measured: {power.watts_per_core:g} W per busy core times processor time"
    return compared("J/token", *costs), f"{note}; unavailable: {meter.reason}"
