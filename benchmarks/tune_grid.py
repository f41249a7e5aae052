"""Whether `inference-pio tune` finds what a full grid finds: both on the same loaded model, then their bests in pairs.

    python benchmarks/tune_grid.py [--model NAME] [--profile latency] [--seconds 60] [--rounds 2] [--json]

Every combination of the values that `tune` chooses among is measured `--rounds` times; the eight fastest race on, and
the winner is compared with what the search found, in pairs. That takes ten minutes and more for two processors. Exit
code 1 where the search's best is slower for certain. Nothing is stored.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from inference_pio import LLM
from inference_pio.benchmarks.environment import environment
from inference_pio.benchmarks.tuning.search import Search
from inference_pio.benchmarks.tuning.space import WORK, Space, space_of

_FINALISTS = 8
_PAIRS = 21


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--profile", default="latency", choices=sorted(WORK))
    parser.add_argument("--seconds", type=float, default=60.0, help="of the search")
    parser.add_argument("--rounds", type=int, default=2, help="of the grid")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    longest = min(work.longest for work in WORK[chosen.profile])
    with LLM(chosen.model, tuned=False, max_num_seqs=1, max_model_len=longest) as llm:
        begin = time.perf_counter()
        space = space_of(llm, chosen.profile, chosen.seconds * 0.75 / 120, {})
        search = Search(space.trials.cost, time.perf_counter)
        found = search.descend(space.axes, space.start, begin + chosen.seconds * 0.75)
        searched = time.perf_counter() - begin
        best, size = grid(space, search, chosen.rounds)
        gridded = time.perf_counter() - begin - searched
        versus = search.compare(best, found.setting, _PAIRS, math.inf)
        gain = search.compare(space.start, found.setting, _PAIRS, math.inf)
    assert versus is not None
    assert gain is not None
    result = {
        "work": str(space.trials.workload),
        "search": {
            "setting": found.setting,
            "measurements": found.evaluations,
            "seconds": round(searched, 1),
        },
        "grid": {"setting": best, "settings": size, "seconds": round(gridded, 1)},
        "search_over_grid": asdict(versus),
        "search_over_defaults": asdict(gain),
        "environment": environment(),
    }
    print(json.dumps(result, indent=2) if chosen.json else _text(result))
    return 1 if versus.verdict == "slower" else 0


def grid(space: Space, search: Search, rounds: int) -> tuple[Mapping[str, Any], int]:
    """(the fastest of all combinations, how many there are)."""
    values = [dict.fromkeys((space.start[axis.name], *axis.values)) for axis in space.axes]
    # Threads vary fastest: settings that differ in nothing else share an engine.
    names = [axis.name for axis in space.axes]
    settings = [{**space.start, **dict(zip(names, each, strict=True))} for each in itertools.product(*values)]
    settings.sort(key=lambda setting: [str(setting[name]) for name in names if name != "threads"])
    fastest = [math.inf] * len(settings)
    for number in range(rounds):
        order = range(len(settings)) if number % 2 == 0 else range(len(settings))[::-1]
        for which in order:
            fastest[which] = min(fastest[which], space.trials.cost(settings[which], 1000 + number))
        print(f"grid: round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    ranked = sorted(range(len(settings)), key=lambda which: fastest[which])[:_FINALISTS]
    finalists = [settings[which] for which in ranked]
    # Two races: what is at the top by luck in one is not in the other.
    return search.race([search.race(finalists, math.inf).winner, *finalists[:2]], math.inf).winner, len(
        settings
    )


def _text(result: Mapping[str, Any]) -> str:
    lines = [f"work: {result['work']}"]
    for name in ("search", "grid"):
        lines.append(f"{name}: {', '.join(f'{key} {value}' for key, value in result[name].items())}")
    for name, what in (("search_over_grid", "the grid's best"), ("search_over_defaults", "the defaults")):
        ratio = result[name]["ratio"]
        interval = ratio["interval"]
        lines.append(
            f"the search's best is {ratio['median']:.3f} times as fast as {what} ({interval['low']:.3f} to "
            f"{interval['high']:.3f}, with {interval['confidence']:.0%} confidence): {result[name]['verdict']}"
        )
    facts = result["environment"]
    return "\n".join([*lines, ", ".join(f"{name} {value}" for name, value in facts.items())])


if __name__ == "__main__":
    sys.exit(main())
