"""What the caller of a benchmark chose, and the command line that each of a plugin's benchmarks has of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference_pio.benchmarks.choices import PowerChoice, TaskChoice
from inference_pio.benchmarks.harness import OnRound, R, Run, Timed, repeat
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.errors import InferencePIOError
from inference_pio.loader.progress import silent
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.security import ResourceLimits

QUICK = "--quick: small workloads; these figures say nothing about speed"


@dataclass(frozen=True)
class Settings:
    """What the caller chose.

    model            the suite's own where it is empty
    rounds           each benchmark's where it is 0
    options, flags   further fields of `RuntimeOptions`, and of the model's configuration
    tasks, power     what accuracy asks and power efficiency reads
    tuned            options that tuning found, where none is given
    techniques       that optimization impact switches, by name; all where empty
    on_round         called before the first round of each measurement and after every one
    """

    model: str = ""
    dtype: str = "auto"
    device: str = "auto"
    quick: bool = False
    rounds: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    limits: ResourceLimits | None = None
    tuned: bool = True
    tasks: TaskChoice = field(default_factory=TaskChoice)
    power: PowerChoice = field(default_factory=PowerChoice)
    techniques: tuple[str, ...] = ()
    on_round: OnRound = silent

    def size(self, workload: Workload) -> Workload:
        return workload.quick() if self.quick else workload

    def count(self, usual: int) -> int:
        """How many rounds to time, where a benchmark usually times `usual`.

        Quick runs take an odd number: the median of rates is then the rate of the median time.
        """
        return self.rounds or (3 if self.quick else usual)

    def repeat(self, what: str, run: Run[R], usual: int) -> list[Timed[R]]:
        """`run`, timed as many times as the caller wants."""
        return repeat(run, rounds=self.count(usual), on_round=self.on_round, what=what)

    def load(
        self,
        suite: Suite,
        *workloads: Workload,
        dtype: str = "",
        text: bool = False,
        changes: Mapping[str, Any] | None = None,
    ) -> LoadedModel:
        """The suite's plugin with the chosen model, sized for these workloads; `changes` are further fields of
        `RuntimeOptions` or of the model's configuration, over those that the caller chose."""
        names = RuntimeOptions.names()
        changed = dict(changes or {})
        return LoadedModel(
            suite.plugin,
            self.model or suite.model,
            workloads,
            dtype=dtype or self.dtype,
            device=self.device,
            flags={**self.flags, **{name: changed[name] for name in changed if name not in names}},
            options={**self.options, **{name: changed[name] for name in changed if name in names}},
            limits=self.limits,
            text=text,
            tuned=self.tuned,
        )


Measure = Callable[[Suite, Settings], Report]


def main(
    measure: Callable[[Settings], Report], description: str | None, arguments: Sequence[str] | None = None
) -> int:
    """Parse, measure, print; the exit code. An expected error is one line on standard error."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--model", default="", help="another model of this architecture: name, file or directory"
    )
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--rounds", type=int, default=0, help="timed rounds (0: as many as the benchmark needs)"
    )
    parser.add_argument("--quick", action="store_true", help="a small workload: does it run at all?")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = vars(parser.parse_args(arguments))
    as_json = chosen.pop("json")
    if chosen["rounds"] < 0:
        parser.error(f"--rounds must be 0 or more, got {chosen['rounds']}")
    try:
        report = measure(Settings(**chosen))
    except InferencePIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if chosen["quick"]:
        report.notes.append(QUICK)
    report.print(as_json=as_json)
    return 0
