"""Our engine against others: the same files, the same prompts, the same threads, in turns.

    make bench-peers [OPTIONS="--peers llama.cpp,openvino --rows smollm2-decode --rounds 3 --check"]

Peers are installed on the first run, each into an environment of its own. What cannot be is skipped, and said.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from inference_pio.benchmarks.environment import environment
from inference_pio.errors import InferencePIOError, UsageError
from inference_pio.loader.resolve import resolve
from peers import record, rows
from peers.chart import draw
from peers.command import add_measuring, parsed, say
from peers.engines import PEERS
from peers.environments import PeerUnavailable, default_folder
from peers.measure import Contestant, measure_model
from peers.report import method, print_comparison
from peers.results import Comparison, result_of
from peers.rows import OURS, USUAL_PEERS, Row
from peers.worker import Launch


def main(arguments: Sequence[str] | None = None) -> int:
    """0; with --check 1 where a bar is not met."""
    options = parsed(_parser(), arguments)
    try:
        table = [row.quick() if options.quick else row for row in rows.chosen(options.rows)]
        named = _named(options.peers)
        folder = (options.environments or default_folder()).absolute()
        comparison = Comparison()
        launches = _launches(table, named, folder, comparison)
        if options.setup:
            return 0 if not comparison.unavailable else 1
        for model, of_model in rows.by_model(table).items():
            _measure(model, of_model, named, launches, folder, options, comparison)
    except InferencePIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    _publish(comparison, options)
    return 1 if options.check and not comparison.all_met else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench-peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--peers",
        default="",
        help=f"whom to measure against: {', '.join(name for name in PEERS if name != OURS)}",
    )
    add_measuring(parser)
    parser.add_argument(
        "--environments", type=Path, help="where peers are installed (or INFERENCE_PIO_PEERS)"
    )
    parser.add_argument("--setup", action="store_true", help="install the peers, measure nothing")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is not met")
    return parser


def _named(peers: str) -> tuple[str, ...]:
    """Peers that the caller names; none where each row decides."""
    names = tuple(name.strip() for name in peers.split(",") if name.strip())
    for name in names:
        if name not in PEERS:
            raise UsageError(f"no peer is called {name!r}; there are {', '.join(PEERS)}")
    return tuple(name for name in names if name != OURS)


def _launches(
    table: Sequence[Row], named: Sequence[str], folder: Path, comparison: Comparison
) -> dict[str, Launch]:
    """How to start each engine that any row asks for; who cannot be set up is noted in `comparison`."""
    wanted = [OURS, *dict.fromkeys(name for row in table for name in named or USUAL_PEERS[row.model])]
    launches = {}
    for name in wanted:
        try:
            launches[name] = PEERS[name].launch(folder, say)
        except PeerUnavailable as error:
            comparison.unavailable[name] = str(error)
            say(f"{name}: skipped, {error}")
    return launches


def _measure(
    model: str,
    of_model: Sequence[Row],
    named: Sequence[str],
    launches: dict[str, Launch],
    folder: Path,
    options: argparse.Namespace,
    comparison: Comparison,
) -> None:
    file = resolve(model).path
    contestants, missing = {}, {}
    for name in (OURS, *(named or USUAL_PEERS[model])):
        if name not in launches:
            missing[name] = comparison.unavailable[name]
            continue
        try:
            contestants[name] = Contestant(launches[name], PEERS[name].model(model, file, folder, say))
        except PeerUnavailable as error:
            missing[name] = str(error)
    threads = options.threads or int(environment()["cores"])
    measured, ready = measure_model(of_model, contestants, rounds=options.rounds, threads=threads, say=say)
    comparison.results += [result_of(one, missing) for one in measured]
    comparison.ready |= ready


def _publish(comparison: Comparison, options: argparse.Namespace) -> None:
    facts = environment()
    threads = options.threads or int(facts["cores"])
    facts["threads"] = threads
    lines = method(options.rounds, threads)
    if options.quick:
        lines.append("--quick: small workloads; these figures say nothing about speed")
    data = {
        "rounds": options.rounds,
        "rows": [result.as_dict() for result in comparison.results],
        "engines": {name: vars(ready) for name, ready in comparison.ready.items()},
        "unavailable": comparison.unavailable,
        "method": lines,
        "environment": facts,
    }
    if options.json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        print_comparison(comparison, [*lines, ", ".join(f"{name} {value}" for name, value in facts.items())])
    if options.record:
        file = record.write("peers", data)
        plot = file.with_suffix(".svg")
        plot.write_text(draw(data), encoding="utf-8")
        say(f"recorded: {file} and {plot.name}")


if __name__ == "__main__":
    sys.exit(main())
