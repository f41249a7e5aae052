"""Products with packed weights: every kind of blocks, for a token, a batch and a prompt, beside torch in bfloat16.

    python benchmarks/products.py [--kinds Q4_1,Q6_K] [--json]

Copies of the weight take turns, so that it comes out of memory as a model's do. Besides a plain product there are the
gated one, rows of the embedding and the largest logit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from inference_pio import ops
from inference_pio.loader.packing import iq2_codebook
from inference_pio.ops.quantized import KINDS, quantized_embedding, quantized_gated_linear, quantized_linear
from requantize import encode

ROWS, COLUMNS = 3072, 1536
TOKENS = (1, 16, 1024)
SECONDS = 0.3  # per figure
_ROTATING = 200e6  # bytes: more than a processor keeps


@dataclass(frozen=True)
class Figure:
    """One line: microseconds, and what they make of the weight's bytes and of the operations."""

    name: str
    tokens: int
    microseconds: float
    gigabytes_per_second: float
    gigaoperations_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := [kind for kind in kinds if not ops.can_pack(kind)]:
        parser.error(f"cannot pack {', '.join(unknown)}; there are {', '.join(KINDS)}, with native kernels")
    if not options.json:
        print(f"[{ROWS}, {COLUMNS}], {torch.get_num_threads()} threads, medians")
        print(f"{'':28}{'tokens':>7}{'µs':>11}{'GB/s':>8}{'GOP/s':>8}")
    with torch.inference_mode():
        for figure in figures(kinds):
            if options.json:
                print(json.dumps(asdict(figure)), flush=True)
                continue
            rates = f"{figure.gigabytes_per_second:8.1f}{figure.gigaoperations_per_second:8.0f}"
            print(f"{figure.name:28}{figure.tokens:7}{figure.microseconds:11.1f}{rates}", flush=True)


def figures(kinds: list[str]) -> Iterator[Figure]:
    dense = torch.randn(ROWS, COLUMNS)
    plain = [dense.to(torch.bfloat16) for _ in range(int(_ROTATING / dense.nbytes * 2) + 1)]
    for tokens in TOKENS:
        x = torch.randn(tokens, COLUMNS, dtype=torch.bfloat16)
        yield measured("torch bfloat16", tokens, [partial(F.linear, x, w) for w in plain], plain[0].nbytes)
    for kind in kinds:
        half = blocks(dense[: ROWS // 2], kind)
        gated = ops.pack_quantized([half, half])
        weights = [ops.pack_quantized([half, half]) for _ in range(int(_ROTATING / gated.nbytes) + 1)]
        for tokens in TOKENS:
            x = torch.randn(tokens, COLUMNS)
            calls = [partial(quantized_linear, x, w, None) for w in weights]
            yield measured(f"{kind} linear", tokens, calls, gated.nbytes)
            calls = [partial(quantized_gated_linear, x, w, None) for w in weights]
            yield measured(f"{kind} gated_linear", tokens, calls, gated.nbytes)
        whole = ops.pack_quantized([half])
        ids = torch.randint(0, ROWS // 2, (1024,))
        yield measured(f"{kind} embedding", 1024, [partial(quantized_embedding, ids, whole)], whole.nbytes, 0)
    for tokens in (1, 32):
        logits = torch.randn(tokens, 49152)
        yield measured("row_max of 49152", tokens, [partial(ops.row_max, logits)], logits.nbytes, 0)


def blocks(values: torch.Tensor, kind: str) -> ops.Blocks:
    data = torch.from_numpy(encode(values.numpy().astype(np.float32), kind))
    return ops.Blocks(kind, data, values.shape[1], iq2_codebook())


def measured(
    name: str,
    tokens: int,
    calls: list[Callable[[], object]],
    nbytes: int,
    operations: int = 2 * ROWS * COLUMNS,
) -> Figure:
    """`operations` per token; `nbytes` are read once in a call."""
    turns = cycle(calls)
    for _ in range(3):
        next(turns)()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 5:
        call = next(turns)
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    return Figure(name, tokens, seconds * 1e6, nbytes / seconds / 1e9, operations * tokens / seconds / 1e9)


if __name__ == "__main__":
    main()
