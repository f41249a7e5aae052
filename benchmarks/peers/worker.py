"""A worker process as the orchestrator sees it: started, asked, ended. It sleeps while others are measured."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from peers.replies import Ready, Reply, WorkerFailed, parse_ready, parse_reply
from peers.workers.worker_protocol import Settings

Tokens = list[list[int]]


@dataclass(frozen=True)
class Launch:
    """How to start a worker: its command, to which the settings are added, and where its standard error goes."""

    name: str
    command: tuple[str, ...]
    log: Path
    timeout: float = 1800.0


class Worker:
    """One process. Every method raises `WorkerFailed` with the cause where the process is not what it should be."""

    def __init__(self, launch: Launch, settings: Settings) -> None:
        self._launch = launch
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        with launch.log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [*launch.command, json.dumps(asdict(settings))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=os.environ | _threads(settings.threads),
                )
            except OSError as error:
                raise WorkerFailed(f"{launch.command[0]} does not start: {error.strerror}") from error
        self._buffer = b""

    def wait_ready(self) -> Ready:
        """Block until the model is loaded."""
        return parse_ready(self._line())

    def ask(self, prompts: Tokens, output_len: int) -> Reply:
        """Continue every prompt by exactly `output_len` tokens."""
        self.send(prompts, output_len)
        return self.receive(len(prompts), output_len)

    def send(self, prompts: Tokens, output_len: int) -> None:
        try:
            self._input.write(json.dumps({"prompts": prompts, "output_len": output_len}).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def receive(self, requests: int, output_len: int) -> Reply:
        return parse_reply(self._line(), requests, output_len)

    def cpu_seconds(self) -> float:
        """What the process and its children have computed so far; 0 where it is gone."""
        try:
            root = psutil.Process(self._process.pid)
            times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
        except psutil.NoSuchProcess:
            return 0.0
        return float(sum(time.user + time.system for time in times))

    def kill(self) -> None:
        """End it at once: one that failed must not go on computing while others are measured."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process: by the end of its input, by force where that is not enough."""
        with contextlib.suppress(BrokenPipeError):  # a request that it did not live to read
            self._input.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _line(self) -> bytes:
        deadline = time.monotonic() + self._launch.timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(deadline - time.monotonic()):
                    self.kill()
                    raise WorkerFailed(f"said nothing for {self._launch.timeout:g} s")
                part = os.read(self._output.fileno(), 1 << 20)
                if not part:
                    raise self._ended()
                self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ended(self) -> WorkerFailed:
        try:
            code = self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            return WorkerFailed(f"closed its output; see {self._launch.log}")
        return WorkerFailed(f"ended with exit code {code}: {last_words(self._launch.log)}")


def last_words(log: Path) -> str:
    """The last line of a log that says something: of a Python program that failed, its error."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1][:200]} ({log})" if lines else f"no word of why ({log})"


def _threads(count: int) -> dict[str, str]:
    return {name: str(count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
