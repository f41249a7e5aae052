"""The standard's six benchmarks by name, and one run of some of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import msgspec

from inference_pio.benchmarks import accuracy, energy, impact, memory, speed, throughput
from inference_pio.benchmarks.command import Measure, Settings
from inference_pio.benchmarks.records import plain_settings, read_report
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.workload import Suite
from inference_pio.errors import InferencePIOError, UsageError


@dataclass(frozen=True)
class Benchmark:
    """One of the six.

    usual  part of a run that names none
    alone  measured in a process of its own
    work   what it gives to a model, in words
    """

    name: str
    question: str
    measure: Measure
    work: Callable[[Suite], str]
    usual: bool = True
    alone: bool = False


SIX = (
    Benchmark(
        "throughput",
        "tokens per second of many sequences",
        throughput.measure,
        lambda suite: str(suite.batch),
    ),
    Benchmark(
        "inference_speed",
        "first token and decoding of one sequence",
        speed.measure,
        lambda suite: f"{suite.prefill}; {suite.decode}",
    ),
    Benchmark(
        "memory_usage",
        "peak of a process of its own, beside the plan",
        memory.measure,
        lambda suite: f"{suite.batch}; {suite.prefill}",
        alone=True,
    ),
    Benchmark(
        "power_efficiency",
        "joules per token",
        energy.measure,
        lambda suite: f"{suite.batch}; {suite.decode}",
    ),
    Benchmark(
        "optimization_impact",
        "each technique on and off, in turns",
        impact.measure,
        lambda suite: ", ".join(impact.names(suite)),
        usual=False,
    ),
    Benchmark(
        "accuracy",
        "perplexity beside float32, questions with known answers",
        accuracy.measure,
        lambda suite: accuracy.described(),  # noqa: ARG005 - the same for every model
        usual=False,
    ),
)


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names, in the usual order; those of a usual run where there are none.

    Raises:
        UsageError: a name is unknown.
    """
    known = [one.name for one in SIX]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no benchmark is called {unknown[0]!r}; there are {', '.join(known)}")
    return [one for one in SIX if (one.name in names if names else one.usual)]


def run(benchmark: Benchmark, suite: Suite, settings: Settings) -> Report:
    """One benchmark, its time noted.

    Raises:
        InferencePIOError: the model cannot be found, read or run here.
    """
    started = perf_counter()
    report = _alone(benchmark, suite, settings) if benchmark.alone else benchmark.measure(suite, settings)
    report.seconds = perf_counter() - started
    return report


def _alone(benchmark: Benchmark, suite: Suite, settings: Settings) -> Report:
    """In a new process: what this one has held before must not count."""
    settings.on_round(0, 1, f"{benchmark.name}, in a process of its own")
    task = {
        "benchmark": benchmark.name,
        "suite": _without_techniques(suite),
        "settings": plain_settings(settings),
    }
    done = subprocess.run(
        [sys.executable, "-m", "inference_pio.benchmarks.alone"],
        input=msgspec.json.encode(task),
        capture_output=True,
        check=False,
    )
    settings.on_round(1, 1, f"{benchmark.name}, in a process of its own")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _failed(done.returncode, lines[-1] if lines else f"exit code {done.returncode}")
    return read_report(msgspec.json.decode(done.stdout))


def _without_techniques(suite: Suite) -> dict[str, object]:
    """What goes to another process: a technique may hold a function."""
    plain: dict[str, object] = msgspec.to_builtins(replace(suite, techniques=()))
    return plain


def _failed(code: int, message: str) -> InferencePIOError:
    error = InferencePIOError(message.removeprefix("error: "))
    error.exit_code = code if 0 < code < 128 else InferencePIOError.exit_code
    return error
