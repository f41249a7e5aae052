"""A trace's requests given to the engine at the trace's times, and how many of them were answered in time.

An open loop: nobody waits for an answer before the next request, and every time counts from when the trace says that
the request came, however late it was given to the engine (no coordinated omission). Goodput is DistServe's (Zhong et
al., OSDI 2024): requests per second that met both targets, for the first token and for each token after it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.harness import OnRound
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.report import Report, without_nan
from inference_pio.benchmarks.traces import TracePrompts, TraceRequest, read_trace, scaled
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.engine.stream import RequestStream
from inference_pio.engine.updates import EngineStats, SequenceUpdate
from inference_pio.errors import UsageError
from inference_pio.loader.progress import silent
from inference_pio.plugin.runtime import RuntimeOptions

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Replaying:
    """What is played. scale: tokens are divided by it; speed: the trace's clock runs so many times as fast; seconds:
    requests of so long are played; ttft_ms, tpot_ms: the targets."""

    trace: str
    scale: int = 16
    speed: float = 1.0
    seconds: float = 60.0
    ttft_ms: float = 1000.0
    tpot_ms: float = 100.0

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise UsageError(f"scale must be a whole number from 1 up, got {self.scale}")
        for name in ("speed", "seconds", "ttft_ms", "tpot_ms"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be above 0 and finite, got {getattr(self, name):g}")

    def requests(self) -> list[TraceRequest]:
        """Scaled, as many as come in the given time."""
        return [
            one
            for one in scaled(read_trace(self.trace), self.scale, self.speed)
            if one.seconds <= self.seconds
        ]

    def __str__(self) -> str:
        when = f"the first {self.seconds:g} s at {self.speed:g} times its speed"
        return f"{self.trace}, {when}, 1/{self.scale} of its tokens"


@dataclass(frozen=True)
class Played:
    """One request that has ended: seconds of the replay, and since it came.

    came               by the trace; queue: until its first step; ttft: until its first token
    tpot               each token after the first, on average; NaN where there is one alone
    error              why it was not answered; empty where it was
    """

    came: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    queue: float
    ttft: float
    tpot: float
    total: float
    error: str = ""

    def meets(self, ttft_ms: float, tpot_ms: float) -> bool:
        """Both targets; that of tokens after the first is met where there are none."""
        slow = not math.isnan(self.tpot) and 1000 * self.tpot > tpot_ms
        return not self.error and 1000 * self.ttft <= ttft_ms and not slow


@dataclass(frozen=True)
class Goodput:
    """Requests per second, over the whole replay but for `offered`, over the time in which they came; share: of those
    that have ended."""

    offered: float
    done: float
    good: float
    share: float


def goodput(played: Sequence[Played], given: int, came_for: float, ttft_ms: float, tpot_ms: float) -> Goodput:
    """Of what has ended, of `given` requests that came within `came_for` seconds."""
    lasted = max([came_for, *(one.came + one.total for one in played)])
    done = sum(not one.error for one in played)
    good = sum(one.meets(ttft_ms, tpot_ms) for one in played)
    if not played or lasted <= 0:
        return Goodput(math.nan, math.nan, math.nan, math.nan)
    offered = given / came_for if came_for > 0 else math.nan
    return Goodput(offered, done / lasted, good / lasted, good / len(played))


def percentile(samples: Sequence[float], percent: float) -> float:
    """Between the two nearest in a straight line; NaN of none."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


class Replay:
    """`run` plays; `played` and `given` hold what there is, where it is interrupted."""

    def __init__(self, loaded: LoadedModel, requests: Sequence[TraceRequest], scale: int) -> None:
        self.played: list[Played] = []
        self.given = 0
        self.came_for = 0.0
        self._loaded, self._requests = loaded, requests
        prompts = TracePrompts(loaded.vocab_size, scale)
        # Before the clock starts: drawing tokens takes time that the engine would miss.
        self._prompts = [prompts.token_ids(number, one) for number, one in enumerate(requests)]
        self._changed = threading.Condition()
        self._open: dict[int, RequestStream] = {}

    def run(self, on_round: OnRound = silent) -> None:
        """Play to the end; `on_round` is told when requests have ended."""
        total = len(self._requests)
        on_round(0, total, "replay")
        started = perf_counter()
        try:
            while len(self.played) < total:
                self._give(started)
                self._wait(started)
                if self._take(started):
                    on_round(len(self.played), total, "replay")
        finally:
            for stream in self._open.values():
                stream.cancel()

    def _give(self, started: float) -> None:
        """All that have come by now."""
        while (
            self.given < len(self._requests)
            and perf_counter() >= started + self._requests[self.given].seconds
        ):
            number, request = self.given, self._requests[self.given]
            self._open[number] = self._loaded.submit(
                self._prompts[number], request.output_tokens, started + request.seconds, self._changed
            )
            self.given, self.came_for = number + 1, request.seconds

    def _wait(self, started: float) -> None:
        """For the next to come or an answer to end."""
        with self._changed:
            if any(stream.ready for stream in self._open.values()):
                return
            if self.given == len(self._requests):
                self._changed.wait()
            else:
                self._changed.wait(max(0.0, started + self._requests[self.given].seconds - perf_counter()))

    def _take(self, started: float) -> bool:
        ended = [number for number, stream in self._open.items() if stream.ready]
        for number in ended:
            stream = self._open.pop(number)
            [update] = stream.take_ready()
            self.played.append(self._told(self._requests[number], stream, update, started))
        return bool(ended)

    def _told(
        self, request: TraceRequest, stream: RequestStream, update: SequenceUpdate, started: float
    ) -> Played:
        """Times are those at which the engine gave tokens, whenever this thread got round to them."""
        came, count, usage = started + request.seconds, len(update.token_ids), update.usage
        assert usage is not None
        assert stream.last_update_at is not None
        first = math.nan if usage.first_token_at is None else usage.first_token_at
        return Played(
            came=request.seconds,
            prompt_tokens=request.prompt_tokens,
            output_tokens=count,
            cached_tokens=update.num_cached_tokens,
            queue=math.nan if usage.started is None else usage.started - came,
            ttft=first - came,
            tpot=(stream.last_update_at - first) / (count - 1) if count > 1 else math.nan,
            total=stream.last_update_at - came,
            error=str(update.error or ""),
        )


@dataclass
class Outcome:
    """The report, and every request behind it; `interrupted` where the end was not waited for."""

    report: Report
    played: list[Played]
    goodput: Goodput
    settings: Replaying
    interrupted: KeyboardInterrupt | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the report, and a row for each request, in the order in which they ended."""
        rows = [
            asdict(one) | {"good": one.meets(self.settings.ttft_ms, self.settings.tpot_ms)}
            for one in self.played
        ]
        plain: dict[str, Any] = without_nan(
            {
                "replay": asdict(self.settings),
                "goodput": asdict(self.goodput),
                "report": self.report.as_dict(),
                "requests": rows,
            }
        )
        return plain


def measure(suite: Suite, settings: Settings, replaying: Replaying) -> Outcome:
    """Load a model and play; Ctrl-C ends it with what has ended.

    Raises:
        InferencePIOError: the trace, or the model, cannot be read or run here.
    """
    requests, shortened = fitting(replaying.requests(), suite.context)
    most = settings.options.get("max_num_seqs") or RuntimeOptions().max_num_seqs
    longest = max(one.prompt_tokens + one.output_tokens for one in requests)
    size = Workload(longest - 1, 1, most)
    with settings.load(suite, size) as loaded:
        loaded.run(Workload(min(64, size.prompt_len), 1), -1)  # warms up
        before = loaded.stats()
        replay = Replay(loaded, requests, replaying.scale)
        interrupted = None
        try:
            replay.run(settings.on_round)
        except KeyboardInterrupt as error:
            interrupted = error
        report = Report("replay", loaded.name, work={"trace": str(replaying)}, figure="figure")
        rates = goodput(replay.played, replay.given, replay.came_for, replaying.ttft_ms, replaying.tpot_ms)
        _fill(report, replay, rates, before, loaded.stats(), replaying)
        report.metrics.complete(loaded.performance())
    report.notes.append(str(replaying))
    if shortened:
        report.notes.append(
            f"{shortened} prompts are shortened to the model's context of {suite.context} tokens"
        )
    if interrupted is not None:
        report.notes.append(f"interrupted: {len(replay.played)} of {len(requests)} requests had ended")
    return Outcome(report, replay.played, rates, replaying, interrupted)


def fitting(requests: Sequence[TraceRequest], context: int | None) -> tuple[list[TraceRequest], int]:
    """The same, prompts and answers as long as the model takes; how many are shortened."""
    fitted = []
    for request in requests:
        within = Workload(request.prompt_tokens, request.output_tokens)
        within = within if context is None else within.within(context)
        fitted.append(replace(request, prompt_tokens=within.prompt_len, output_tokens=within.output_len))
    return fitted, sum(one != other for one, other in zip(requests, fitted, strict=True))


def _fill(
    report: Report, replay: Replay, rates: Goodput, before: EngineStats, after: EngineStats, asked: Replaying
) -> None:
    answered = [one for one in replay.played if not one.error]
    lasted = max([replay.came_for, *(one.came + one.total for one in replay.played)])
    targets = f"first token within {asked.ttft_ms:g} ms, then {asked.tpot_ms:g} ms per token"
    report.add("offered", "requests/s", rates.offered, f"{replay.given} in {replay.came_for:.1f} s")
    report.add("done", "requests/s", rates.done, f"{len(answered)} in {lasted:.1f} s", better="more")
    report.add("goodput", "requests/s", rates.good, targets, better="more")
    report.add("goodput, share", "", rates.share, "of the requests that have ended", better="more")
    failed = len(replay.played) - len(answered)
    report.add("failed", "requests", float(failed), "", better="less")
    for name, what in (
        ("ttft", "first token"),
        ("tpot", "per token after it"),
        ("total", "whole request"),
        ("queue", "waiting for its first step"),
    ):
        known = [1000 * value for one in answered if not math.isnan(value := getattr(one, name))]
        for percent in PERCENTILES:
            report.add(f"{what}, p{percent}", "ms", percentile(known, percent), f"of {len(known)}")
        if name == "ttft":
            report.metrics.resource_utilization |= {
                f"ttft_p{p}_ms": percentile(known, p) for p in PERCENTILES
            }
    tokens = sum(one.output_tokens for one in answered)
    throughput = tokens / lasted if lasted > 0 else math.nan
    report.add("output", "tok/s", throughput)
    looked_up = after.prefix_query_tokens - before.prefix_query_tokens
    found = after.prefix_hit_tokens - before.prefix_hit_tokens
    report.add(
        "prefix cache",
        "",
        found / looked_up if looked_up else math.nan,
        "share of prompts' tokens",
        better="more",
    )
    report.metrics.throughput_tokens_per_sec = throughput
    report.metrics.latency_ms = percentile([1000 * one.total for one in answered], 50)
    report.metrics.resource_utilization["goodput_requests_per_s"] = rates.good
