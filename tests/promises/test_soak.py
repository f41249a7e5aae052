"""Three minutes of requests that are answered, given up or refused: afterwards everything is as it was before.

Beside them readers of strangers' bytes are fuzzed, half a minute each, because neither of the two is about time.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UsageError
from inference_pio.security import landlock
from inference_pio.worker.runtime import WorkerRuntime

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock"),
]

SECONDS = 180.0
WARM_REQUESTS = 5000  # until caches and allocators have what they keep
CLIENTS = 4
LIMITS = ResourceLimits(memory_gb=2.0, cpu_percent=200, gpu_memory_gb=0, network_bandwidth_mbps=0)
MOST_GROWTH = 0.02
MOST_BYTES_PER_REQUEST = 100.0
FUZZ = Path(__file__).parents[1] / "fuzz" / "every.py"
FUZZ_SECONDS = 30
FUZZ_AT_MOST = 300.0


@dataclass(frozen=True)
class Sample:
    requests: int
    anonymous_bytes: int
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int, requests: int) -> Sample:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        try:
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except PermissionError:  # another process's are shown to root alone
            descriptors = 0
        return cls(requests, int(fields["RssAnon"].split()[0]) * 1024, int(fields["Threads"]), descriptors)


class Clients:
    """Threads that ask for all kinds of things; `done` counts what came to an end of the right kind."""

    def __init__(self, llm: LLM) -> None:
        self._llm, self._stop = llm, threading.Event()
        self.errors: list[BaseException] = []
        self._count = itertools.count(1)
        self.done = 0
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, seed: int) -> None:
        draw = random.Random(seed)
        kinds: Sequence[Callable[[random.Random], None]] = (
            *[self._answered] * 4,
            *[self._streamed] * 2,
            *[self._given_up] * 3,
            self._refused,
        )
        try:
            while not self._stop.is_set():
                draw.choice(kinds)(draw)
                self.done = next(self._count)
        except BaseException as error:
            self.errors.append(error)
            raise

    def _answered(self, draw: random.Random) -> None:
        params = SamplingParams(
            n=draw.choice((1, 1, 2)), seed=draw.randrange(99), max_tokens=draw.randrange(1, 24)
        )
        for output in self._llm.generate([_prompt(draw) for _ in range(draw.randrange(1, 4))], params):
            assert all(answer.finish_reason in ("stop", "length") for answer in output.outputs)

    def _streamed(self, draw: random.Random) -> None:
        params = SamplingParams(seed=draw.randrange(99), max_tokens=draw.randrange(1, 24), logprobs=2)
        chunks = list(self._llm.stream(_prompt(draw), params))
        assert chunks[-1].metrics is not None

    def _given_up(self, draw: random.Random) -> None:
        stream = self._llm.stream(_prompt(draw), SamplingParams(max_tokens=60, ignore_eos=True))
        for _ in range(draw.randrange(4)):
            next(stream)
        stream.close()

    def _refused(self, draw: random.Random) -> None:
        wrong: tuple[tuple[Any, dict[str, Any]], ...] = (
            ({"prompt_token_ids": [-1]}, {}),
            ({"prompt_token_ids": [10**6]}, {}),
            ({"prompt_token_ids": [1] * 10**5}, {}),
            ("the cat", {"logit_bias": {10**7: 1.0}}),
            ("the cat", {"n": 0}),
        )
        prompt, params = draw.choice(wrong)
        with pytest.raises(UsageError):
            self._llm.generate(prompt, SamplingParams(**params))


def _prompt(draw: random.Random) -> str:
    return " ".join(draw.choice(("the", "cat", "one", "two", "words")) for _ in range(draw.randrange(1, 30)))


@pytest.fixture(scope="module")
def fuzzing(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[subprocess.Popen[bytes], Path] | None]:
    """A process that does it, and what it prints; None where it cannot be done."""
    if find_spec("atheris") is None:
        yield None
        return
    told = tmp_path_factory.mktemp("fuzzing") / "told"
    command = [sys.executable, str(FUZZ), str(FUZZ_SECONDS)]
    with told.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    yield process, told
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.usefixtures("fuzzing")
def test_nothing_grows(tmp_path: Path) -> None:
    checkpoint = Subject.of("llama", tmp_path, collected={}).checkpoint("grouped")
    options: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_gb": 0.003, "block_size": 16}
    level = SecurityLevel.LOW_TRUST
    with LLM(str(checkpoint), security_level=level, resource_limits=LIMITS, **options) as llm:
        runtime = llm._runtime
        assert isinstance(runtime, WorkerRuntime)
        pid = runtime.model.pid
        assert pid is not None
        idle = {who: Sample.of(who, 0) for who in (pid, os.getpid())}
        clients = Clients(llm)
        clients.start()
        samples = _watched(clients, (pid, os.getpid()))
        clients.stop()
        assert clients.errors == []
        assert runtime.model.pid == pid
        assert llm._runtime.compute_stats()["requests_running"] == 0
        runtime.optimize()  # prefixes that are kept for later go with it
        assert runtime.memory_stats()["kv_cache_used_bytes"] == 0
        time.sleep(1.0)  # threads of clients and descriptors of what was given up
        for who, before in idle.items():
            after = Sample.of(who, 0)
            assert after.threads <= before.threads + (who == pid), who
            assert after.descriptors == before.descriptors, who
            _does_not_grow(samples[who])


def test_fuzzing_finds_nothing(fuzzing: tuple[subprocess.Popen[bytes], Path] | None) -> None:
    if fuzzing is None:
        pytest.skip("atheris is missing: there is one for Linux, x86-64, Python 3.11 to 3.13")
    process, told = fuzzing
    assert process.wait(FUZZ_AT_MOST) == 0, told.read_text()
    assert told.read_text().startswith(f"nothing found in {FUZZ_SECONDS} s of ")


def _watched(clients: Clients, pids: Sequence[int]) -> dict[int, list[Sample]]:
    """One sample a second, from when it is warm."""
    samples: dict[int, list[Sample]] = {pid: [] for pid in pids}
    began = time.monotonic()
    while time.monotonic() < began + SECONDS and not clients.errors:
        time.sleep(1.0)
        if clients.done >= WARM_REQUESTS:
            for pid in pids:
                samples[pid].append(Sample.of(pid, clients.done))
    return samples


def _does_not_grow(samples: Sequence[Sample]) -> None:
    """The last third against the first, and the median slope of all pairs (Theil and Sen)."""
    third = len(samples) // 3
    assert third > 10, f"{len(samples)} samples: {WARM_REQUESTS:,} requests took too long"
    first, last = (
        median(sample.anonymous_bytes for sample in part) for part in (samples[:third], samples[-third:])
    )
    pairs = itertools.combinations(samples, 2)
    slopes = [
        (b.anonymous_bytes - a.anonymous_bytes) / (b.requests - a.requests)
        for a, b in pairs
        if b.requests > a.requests
    ]
    assert last <= first * (1 + MOST_GROWTH), f"{first / 1e6:.1f} MB, then {last / 1e6:.1f} MB"
    assert median(slopes) < MOST_BYTES_PER_REQUEST, f"{median(slopes):.0f} bytes for each request"
