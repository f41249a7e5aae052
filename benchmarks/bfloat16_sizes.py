"""What products of bfloat16 keep: memory of their own and time, each number of rows by itself and as one of few.

    python benchmarks/bfloat16_sizes.py [--products 1200] [--rows 512] [--json]

oneDNN makes code for each number of rows that it meets. Four weights of SmolLM2-135M's shapes, each side in a fresh
process with one thread: rows as they are; with rows of zeros behind them, so that there are few numbers of them; and
that with room for as many pieces of code as a worker keeps. Memory is VmData behind the last product less that before
the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from time import perf_counter

import torch

from inference_pio.benchmarks.environment import environment
from inference_pio.ops.linear import linear, pack_weight
from inference_pio.worker.booting import KEPT_CODE

_SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))
_SIDES = {"as they are": {}, "few sizes": {}, "few sizes, little kept": dict(KEPT_CODE)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--products", type=int, default=1200, help="with each weight")
    parser.add_argument("--rows", type=int, default=512, help="at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=list(_SIDES), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.side is not None:
        print(json.dumps(_measured(chosen.side, chosen.products, chosen.rows)))
        return 0
    found = {side: _in_a_process(side, chosen) for side in _SIDES}
    if chosen.json:
        print(json.dumps({**found, "environment": environment()}, indent=2))
        return 0
    for side, (megabytes, seconds) in found.items():
        print(f"{side}: {megabytes:,.0f} MB more, {seconds:.1f} s")
    return 0


def _in_a_process(side: str, chosen: argparse.Namespace) -> list[float]:
    options = ["--products", str(chosen.products), "--rows", str(chosen.rows)]
    shown = {name: value for name, value in os.environ.items() if name not in KEPT_CODE}
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, *options],
        env={**shown, **_SIDES[side]},
        stdout=subprocess.PIPE,
        check=True,
    )
    told: list[float] = json.loads(done.stdout)
    return told


def _measured(side: str, products: int, most_rows: int) -> tuple[float, float]:
    """Megabytes more, and seconds."""
    torch.set_num_threads(1)
    weights = [pack_weight(torch.randn(shape, dtype=torch.bfloat16)) for shape in _SHAPES]
    if not weights[0].blocked:
        raise SystemExit("this processor has no products of bfloat16")
    chance, before, began = Random(0), _data_bytes(), perf_counter()
    for _ in range(products):
        rows = chance.randint(1, most_rows)
        for weight in weights:
            x = torch.zeros(rows, weight.in_features, dtype=torch.bfloat16)
            if side == "as they are":
                torch.ops.mkldnn._linear_pointwise(x, weight.tensor, None, "none", [], "")
            else:
                linear(x, weight)
    return (_data_bytes() - before) / 1e6, perf_counter() - began


def _data_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


if __name__ == "__main__":
    sys.exit(main())
