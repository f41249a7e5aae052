"""What `PerformanceMetrics` cost: the engine's bookkeeping by the decode step that it is kept of.

    python benchmarks/metrics_cost.py [--model smollm2-135m-instruct] [--steps 100] [--batch 1,32] [--json]

The model decodes so many steps of so many sequences; then the same bookkeeping alone is repeated some thousand times
for as many sequences. Two runs with and without it would differ by less than they scatter. Where the machine counts
energy, reading the meter is in it. Exit code 1 where it is 1 % of a step or more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence as Items
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import cast

import torch

from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.workload import Workload
from inference_pio.engine.ledger import Ledger, Usage
from inference_pio.engine.sequence import Sequence
from inference_pio.errors import InferencePIOError
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.opened import open_model
from inference_pio.runtime.performance import meter_for

_BAR = 0.01
_REPEATS = 20_000


@dataclass(frozen=True)
class Cost:
    """step_us: a decode step of `batch` sequences; bookkeeping_us: what of it is spent on counting."""

    batch: int
    step_us: float
    bookkeeping_us: float

    @property
    def share(self) -> float:
        return self.bookkeeping_us / self.step_us


def bookkeeping_us(batch: int, repeats: int = _REPEATS) -> float:
    """Of one step of as many requests as it has sequences, the new token of each included; median of ten."""
    ledger = Ledger(meter_for(torch.device("cpu")))
    scheduled = cast(dict[Sequence, int], {_Asked(ledger): 1 for _ in range(batch)})
    of_all = []
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(repeats // 10):
            at = time.perf_counter()
            ledger.begin(scheduled)
            for asked in scheduled:
                ledger.told(asked.request.usage)
            ledger.end(scheduled, at, 100)
        of_all.append((time.perf_counter() - started) / (repeats // 10))
    return 1e6 * statistics.median(of_all)


class _Asked:
    """A sequence, as far as the ledger looks at one."""

    finish_reason = None

    def __init__(self, ledger: Ledger) -> None:
        self.request = SimpleNamespace(usage=Usage(ledger, time.perf_counter()))


def step_us(model: str, batch: int, steps: int) -> float:
    """Of decoding, by the engine's own count, prompts of 16 tokens behind it; after a round to warm up."""
    opened = open_model(model, RuntimeOptions())
    plugin = default_registry().choose(opened.raw, str(opened.source.path), None).name
    opened.checkpoint.close()
    short, long = (Workload(16, length, batch) for length in (1, steps + 1))
    with LoadedModel(plugin, model, [short, long]) as loaded:
        seconds = []
        for number, workload in enumerate((long, short, long)):
            before = loaded.plugin.get_compute_stats()
            loaded.run(workload, number)
            after = loaded.plugin.get_compute_stats()
            seconds.append([after[name] - before[name] for name in ("step_seconds", "steps")])
    _, (prefill, its_steps), (whole, all_steps) = seconds
    return 1e6 * (whole - prefill) / (all_steps - its_steps)


def main(arguments: Items[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", default="1,32")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        costs = [
            Cost(batch, step_us(chosen.model, batch, chosen.steps), bookkeeping_us(batch))
            for batch in map(int, chosen.batch.split(","))
        ]
    except InferencePIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if chosen.json:
        print(json.dumps([asdict(cost) | {"share": cost.share} for cost in costs], indent=2))
    else:
        for cost in costs:
            print(
                f"{cost.batch} sequences: a step {cost.step_us:,.0f} µs, bookkeeping {cost.bookkeeping_us:.1f} µs, "
                f"{cost.share:.3%}"
            )
    return int(any(cost.share >= _BAR for cost in costs))


if __name__ == "__main__":
    sys.exit(main())
