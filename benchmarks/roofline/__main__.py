"""Our rows of the comparison without the others, against what the machine can do and against the last recorded run.

make bench [OPTIONS="--rows smollm2 --rounds 5 --record"]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from inference_pio.benchmarks.compare import same_machine, verdict
from inference_pio.benchmarks.environment import environment
from inference_pio.benchmarks.samples import Summary
from inference_pio.errors import InferencePIOError
from inference_pio.loader.resolve import resolve
from inference_pio.metrics import rates
from inference_pio.metrics.hardware import read_machine
from inference_pio.ops import native
from peers import record, rows
from peers.command import add_measuring, parsed, say
from peers.engines import PEERS
from peers.environments import default_folder
from peers.measure import Contestant, measure_model
from peers.report import shown
from peers.results import Result, result_of
from peers.rows import OURS, Row
from roofline.bound import Bound, bound
from roofline.shapes import read_shape

_FILE_WIDTH = 180


@dataclass(frozen=True)
class Line:
    """One row with its bound; `versus` is the verdict against the last record, in words."""

    result: Result
    bound: Bound | None
    versus: str

    @property
    def figure(self) -> Summary | None:
        ours = self.result.engines.get(OURS)
        return ours.figure if ours else None

    @property
    def ceiling(self) -> float | None:
        return self.result.row.figure(self.bound.seconds) if self.bound else None

    @property
    def share(self) -> float | None:
        """Of the bound that was reached."""
        return self.figure.median / self.ceiling if self.figure and self.ceiling else None

    def as_dict(self) -> dict[str, Any]:
        return self.result.as_dict() | {
            "bound": asdict(self.bound) if self.bound else None,
            "ceiling": self.ceiling,
            "share": self.share,
            "versus_last": self.versus,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").partition("\n")[0])
    add_measuring(parser)
    options = parsed(parser, arguments)
    try:
        table = [row.quick() if options.quick else row for row in rows.chosen(options.rows)]
        facts = environment()
        facts["threads"] = options.threads or facts["cores"]
        say("measuring the machine")
        cache = rates.last_level_cache(read_machine(native.ISA, ()))
        machine = rates.measure(int(facts["threads"]), cache)
        last = None if options.quick else record.last("bench")
        lines = [
            line
            for model, of_model in rows.by_model(table).items()
            for line in _measure(model, of_model, options.rounds, machine, facts, last)
        ]
    except InferencePIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    data = {
        "rounds": options.rounds,
        "machine": msgspec.to_builtins(machine),
        "rows": [line.as_dict() for line in lines],
        "environment": facts,
    }
    if options.json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        _print(lines, [str(machine), *_notes(options, last, facts)])
    if options.record:
        say(f"recorded: {record.write('bench', data)}")
    return 1 if any(line.figure is None for line in lines) else 0


def _measure(
    model: str,
    of_model: Sequence[Row],
    rounds: int,
    machine: rates.Rates,
    facts: Mapping[str, Any],
    last: Mapping[str, Any] | None,
) -> list[Line]:
    file = resolve(model).path
    shape = read_shape(file)
    contestant = Contestant(PEERS[OURS].launch(default_folder(), say), file)
    measured, _ = measure_model(of_model, {OURS: contestant}, rounds=rounds, threads=machine.threads, say=say)
    results = [result_of(one, {}) for one in measured]
    return [
        Line(result, bound(result.row, shape, machine), _versus(result, facts, last)) for result in results
    ]


def _versus(result: Result, facts: Mapping[str, Any], last: Mapping[str, Any] | None) -> str:
    """Against the row of the same name and work in the last record."""
    if last is None or OURS not in result.engines:
        return "–"
    then = next((row for row in last["rows"] if row["name"] == result.row.name), None)
    if then is None or then["workload"] != str(result.row.workload) or OURS not in then["engines"]:
        return "– (not in the record)"
    if not same_machine(facts, last["environment"]):
        return "cannot tell (another machine)"
    word, ratio = verdict(
        result.engines[OURS].figure,
        Summary.read(then["engines"][OURS]["figure"]),
        less_is_better=result.row.counts == "start",
    )
    return f"{word} ({ratio:.2f})"


def _print(lines: Sequence[Line], notes: Sequence[str]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD)
    for name in (
        "",
        "work",
        "median (minimum – maximum)",
        "at best here",
        "by",
        "share",
        "against the last record",
    ):
        table.add_column(name)
    for line in lines:
        row = line.result.row
        table.add_row(
            f"{row.name}: {row.title}, {row.unit}",
            str(row.workload),
            shown(line.figure) if line.figure else "failed",
            f"{line.ceiling:,.0f}" if line.ceiling else "–",
            line.bound.by if line.bound else "–",
            f"{line.share:.0%}" if line.share else "–",
            line.versus,
        )
    console.print(table)
    failed = [
        f"{line.result.row.name}: {reason}" for line in lines for reason in line.result.missing.values()
    ]
    for note in (*failed, *notes):
        console.print(f"  {note}", highlight=False)


def _notes(
    options: argparse.Namespace, last: Mapping[str, Any] | None, facts: Mapping[str, Any]
) -> list[str]:
    notes = [
        "at best: every weight as stored in the file once a step, keys and values once in bfloat16; two operations per "
        "parameter and token, four per pair of tokens and attention width; whichever takes longer",
        f"the last record: {last['file'] if last else 'none (--record writes one)'}",
        ", ".join(f"{name} {value}" for name, value in facts.items()),
    ]
    if options.quick:
        notes.append("--quick: small workloads; these figures say nothing about speed")
    return notes


if __name__ == "__main__":
    sys.exit(main())
