"""What the engine's steps cost, and whose they were: plain additions in the engine's thread, read from any other.

A step's seconds and joules belong to its requests by their share of the tokens that it computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from inference_pio.metrics.power import Meter

if TYPE_CHECKING:
    from inference_pio.engine.sequence import Sequence

# A meter is read ten times a second at most, and takes one two-hundredth of the time at most.
_METER_SECONDS, _METER_COST = 0.1, 200


@dataclass(slots=True)
class Totals:
    """Sums over steps since the engine was made.

    step_seconds      the engine computed; cpu_seconds: of all threads of the process in that time
    step_tokens       tokens computed, drafts not counted; step_sequences and step_blocks: sequences of each step, and
                      blocks in use, added up
    queue_seconds     from arrival to the first step, of `requests_started`; first_token_seconds: from arrival to the
                      first token, of `requests_answering`; request_seconds: to the end, of `requests_finished`, which
                      ended by themselves
    joules            that the meter counted in `metered_seconds`
    """

    steps: int = 0
    step_seconds: float = 0.0
    cpu_seconds: float = 0.0
    step_tokens: int = 0
    step_sequences: int = 0
    step_blocks: int = 0
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    request_seconds: float = 0.0
    requests_started: int = 0
    requests_answering: int = 0
    requests_finished: int = 0
    requests_aborted: int = 0
    requests_failed: int = 0
    joules: float = 0.0
    metered_seconds: float = 0.0


class Usage:
    """What one request has taken so far; the engine's totals around it say what went on meanwhile.

    computed_tokens    of its prompt and answers, those computed again after a preemption as often
    step_seconds       its share of the steps it took part in
    joules             its share of what the meter counted in `metered_seconds`, while it was computed
    blocks             that its answers held when they ended, shared ones for each
    """

    __slots__ = (
        "_closing",
        "_ledger",
        "_opening",
        "accepted_drafts",
        "arrived",
        "blocks",
        "computed_tokens",
        "drafts",
        "first_token_at",
        "joules",
        "metered_seconds",
        "started",
        "step_seconds",
    )

    def __init__(self, ledger: Ledger, arrived: float) -> None:
        self.arrived = arrived
        self.started: float | None = None
        self.first_token_at: float | None = None
        self.computed_tokens = self.blocks = self.drafts = self.accepted_drafts = 0
        self.step_seconds = self.joules = self.metered_seconds = 0.0
        self._ledger = ledger
        self._opening: Totals | None = None
        self._closing: Totals | None = None

    @property
    def meanwhile(self) -> tuple[Totals, Totals] | None:
        """The engine's totals before its first step and after its last, or now; None before the first."""
        if self._opening is None:
            return None
        return self._opening, self._closing or self._ledger.totals()

    def open(self, ledger: Totals, started: float) -> None:
        self.started, self._opening = started, ledger

    def close(self, ledger: Totals) -> None:
        self._closing = ledger

    @property
    def closed(self) -> bool:
        return self._closing is not None


class Ledger:
    """Of one engine. `begin` and `end` stand around a step."""

    def __init__(self, meter: Meter | None = None) -> None:
        """`meter` counts joules; None, or one that counts nothing, where the machine cannot tell."""
        self.tokens_under_way = 0
        self.now = Totals()
        self._cpu = 0.0
        self._joules = _Joules(meter) if meter is not None and meter.available else None

    def totals(self) -> Totals:
        """A copy; as of the last step, where the engine is in one."""
        return replace(self.now)

    def begin(self, scheduled: dict[Sequence, int]) -> None:
        """A step of that many tokens starts."""
        self.tokens_under_way = sum(scheduled.values())
        self._cpu = process_time()
        if self._joules is not None:
            self._joules.begin(perf_counter())

    def end(self, scheduled: dict[Sequence, int], started: float, num_blocks: int) -> None:
        """A step that started then has run, with blocks in use."""
        self.tokens_under_way = 0
        now, ended, tokens = self.now, perf_counter(), sum(scheduled.values())
        share = (ended - started) / tokens if tokens else 0.0
        opening = None
        for sequence, count in scheduled.items():
            usage = sequence.request.usage
            if usage.started is None:
                opening = opening or self.totals()  # one for all that start in this step
                usage.open(opening, started)
                now.queue_seconds += max(0.0, started - usage.arrived)
                now.requests_started += 1
            usage.computed_tokens += count
            usage.step_seconds += count * share
        now.steps += 1
        now.step_seconds += ended - started
        now.cpu_seconds += process_time() - self._cpu
        now.step_tokens += tokens
        now.step_sequences += len(scheduled)
        now.step_blocks += num_blocks
        if self._joules is not None:
            self._joules.end(scheduled, ended, now)
        closing = None
        for sequence in scheduled:
            if sequence.finish_reason is not None and sequence.request.usage.closed:
                closing = closing or self.totals()  # with this step in it
                sequence.request.usage.close(closing)

    def told(self, usage: Usage) -> None:
        """An answer has new tokens."""
        if usage.first_token_at is None:
            usage.first_token_at = perf_counter()
            self.now.first_token_seconds += usage.first_token_at - usage.arrived
            self.now.requests_answering += 1

    def retire(self, sequence: Sequence, *, last: bool) -> None:
        """An answer has ended and still holds its blocks; `last` of its request's."""
        usage, now = sequence.request.usage, self.now
        usage.blocks += len(sequence.block_table)
        if not last:
            return
        if sequence.finish_reason == "error":
            now.requests_failed += 1
        elif sequence.finish_reason == "abort":
            now.requests_aborted += 1
        else:
            now.requests_finished += 1
            now.request_seconds += perf_counter() - usage.arrived
        usage.close(self.totals())


class _Joules:
    """A meter read now and then: what it counted goes to the requests computed since, by their tokens."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._tokens: dict[Usage, int] = {}
        self._reading, self._read_at, self._wait = None, -math.inf, _METER_SECONDS

    def begin(self, now: float) -> None:
        """Where nothing has been computed since long, what was used meanwhile is nobody's."""
        if not self._tokens and now - self._read_at >= self._wait:
            self._read(now)

    def end(self, scheduled: dict[Sequence, int], now: float, totals: Totals) -> None:
        for sequence, count in scheduled.items():
            usage = sequence.request.usage
            self._tokens[usage] = self._tokens.get(usage, 0) + count
        seconds = now - self._read_at
        if seconds < self._wait:
            return
        before = self._reading
        self._read(now)
        if before is not None and self._reading is not None:
            joules = self._meter.joules(before, self._reading)
            if not math.isnan(joules):
                self._share(joules, seconds, totals)
        self._tokens = {}

    def _share(self, joules: float, seconds: float, totals: Totals) -> None:
        totals.joules += joules
        totals.metered_seconds += seconds
        tokens = sum(self._tokens.values())
        for usage, count in self._tokens.items():
            usage.joules += joules * count / tokens
            usage.metered_seconds += seconds

    def _read(self, now: float) -> None:
        try:
            self._reading = self._meter.read()
        except (
            OSError,
            ValueError,
        ):  # it could be read when the model was loaded: these seconds count as not measured
            self._reading = None
        self._read_at = now
        self._wait = max(_METER_SECONDS, _METER_COST * (perf_counter() - now))
