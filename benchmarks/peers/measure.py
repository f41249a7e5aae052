"""Rows measured: workers of one model at a time, all of them loaded, one of them asked, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from inference_pio.benchmarks.harness import interleave
from peers.replies import Ready, Reply, WorkerFailed
from peers.rows import Row
from peers.worker import Launch, Worker
from peers.workers.worker_protocol import Settings

# An OpenMP runtime lets its threads spin for up to 200 ms after their work, in case there is more.
_SETTLE_SECONDS = 0.4

Tokens = list[list[int]]


@dataclass(frozen=True)
class Contestant:
    """One engine with the model's files in the form it reads."""

    launch: Launch
    model: Path


@dataclass
class Measured:
    """One row: the replies of each engine, one per round, in the order of the rounds; who failed, and of what.

    idle_cores  cores that the engines which were not asked kept busy meanwhile, at most: they should sleep
    """

    row: Row
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    idle_cores: float = 0.0


@dataclass
class Field:
    """The workers of one model that are loaded, what they said of themselves, and who is out, for what reason."""

    workers: dict[str, Worker] = field(default_factory=dict)
    ready: dict[str, Ready] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def ask(self, name: str, action: Callable[[], Reply]) -> Reply | None:
        """What the action gives; None where it fails, and from then on."""
        if name in self.failed:
            return None
        try:
            return action()
        except WorkerFailed as error:
            self.failed[name] = str(error)
            self.workers[name].kill()
            return None

    def idle_seconds(self, but: str) -> float:
        """Processor time that everyone else has used so far."""
        return sum(worker.cpu_seconds() for name, worker in self.workers.items() if name != but)


def measure_model(
    rows: Sequence[Row],
    contestants: Mapping[str, Contestant],
    *,
    rounds: int,
    threads: int,
    say: Callable[[str], None],
) -> tuple[list[Measured], dict[str, Ready]]:
    """Rows of one model over all `contestants`; nobody's failure stops the others.

    Returns:
        One result per row, and what each engine that loaded said of itself.
    """
    settings = {name: _settings(contestant.model, rows, threads) for name, contestant in contestants.items()}
    with _loaded(contestants, settings, say) as everyone:
        vocab_size = min((ready.vocab_size for ready in everyone.ready.values()), default=0)
        measured = []
        for row in rows:
            runs = {
                name: _run(row, name, everyone, contestants, settings, vocab_size) for name in contestants
            }
            measured.append(_measure_row(row, runs, everyone, rounds, say))
    return measured, everyone.ready


def _settings(model: Path, rows: Sequence[Row], threads: int) -> Settings:
    workloads = [row.workload for row in rows]
    return Settings(
        model=str(model),
        threads=threads,
        max_seqs=max(workload.concurrency for workload in workloads),
        max_len=max(workload.longest for workload in workloads),
        total_tokens=max(workload.longest * workload.concurrency for workload in workloads),
    )


@contextmanager
def _loaded(
    contestants: Mapping[str, Contestant], settings: Mapping[str, Settings], say: Callable[[str], None]
) -> Iterator[Field]:
    """One after the other, so that none is loaded against another's load."""
    everyone = Field()
    with ExitStack() as stack:
        for name, contestant in contestants.items():
            say(f"{name}: loading {contestant.model.name}")
            try:
                worker = stack.enter_context(Worker(contestant.launch, settings[name]))
                everyone.ready[name] = worker.wait_ready()
                everyone.workers[name] = worker
            except WorkerFailed as error:
                everyone.failed[name] = str(error)
                say(f"{name}: out, {error}")
        yield everyone


def _measure_row(
    row: Row,
    runs: Mapping[str, Callable[[int], Reply | None]],
    everyone: Field,
    rounds: int,
    say: Callable[[str], None],
) -> Measured:
    measured = Measured(row)

    def watched(name: str, run: Callable[[int], Reply | None], turn: int) -> Reply | None:
        out = name in everyone.failed
        time.sleep(0 if out else _SETTLE_SECONDS)
        before, start = everyone.idle_seconds(name), time.perf_counter()
        reply = run(turn)
        busy = (everyone.idle_seconds(name) - before) / (time.perf_counter() - start)
        if reply is not None:
            measured.idle_cores = max(measured.idle_cores, busy)
            figure = f"{row.figure(row.seconds(reply)):.1f} {row.unit}"
            say(f"{row.name}, {'warm-up' if turn < 0 else f'round {turn + 1}'}: {name} {figure}")
        elif not out:
            say(f"{row.name}: {name} is out, {everyone.failed[name]}")
        return reply

    timed = interleave({name: partial(watched, name, run) for name, run in runs.items()}, rounds=rounds)
    for name, turns in timed.items():
        if name in everyone.failed:
            measured.failed[name] = everyone.failed[name]
        else:
            measured.replies[name] = [run.result for run in turns if run.result is not None]
    return measured


def _run(
    row: Row,
    name: str,
    everyone: Field,
    contestants: Mapping[str, Contestant],
    settings: Mapping[str, Settings],
    vocab_size: int,
) -> Callable[[int], Reply | None]:
    """One round of one engine: the loaded worker is asked, or, for a start, a new one."""

    def action(turn: int) -> Reply:
        [prompts] = row.workload.waves(vocab_size, turn)
        if row.counts == "start":
            return from_start(contestants[name].launch, _settings_of(row, settings[name]), prompts)
        reply = everyone.workers[name].ask(prompts, row.workload.output_len)
        row.seconds(reply)  # fails here where the reply lacks what the row counts
        return reply

    return lambda turn: everyone.ask(name, partial(action, turn))


def _settings_of(row: Row, settings: Settings) -> Settings:
    return replace(_settings(Path(settings.model), [row], settings.threads), once=True)


def from_start(launch: Launch, settings: Settings, prompts: Tokens) -> Reply:
    """A new process, loaded and asked for one token: seconds from before it exists to its answer."""
    start = time.perf_counter()
    with Worker(launch, settings) as worker:
        worker.send(prompts, 1)
        worker.wait_ready()
        reply = worker.receive(len(prompts), 1)
        return Reply(time.perf_counter() - start, None, reply.tokens)
