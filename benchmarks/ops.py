"""Time of every operation, native and in torch, at the shapes of SmolLM2-135M in bfloat16.

    python benchmarks/ops.py

Median of repeated calls through the public functions; attention is compared with torch's own on contiguous keys.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio import ops
from inference_pio.ops.kept_heads import quantize_heads

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, BLOCK = 576, 9, 3, 64, 1536, 32
DTYPE = torch.bfloat16
SECONDS = 0.3  # per figure


def main() -> None:
    print("; ".join(f"{line.name}: {line.implementation}" for line in ops.table() if line.device == "cpu"))
    print(f"{torch.get_num_threads()} threads; microseconds, median")
    print(f"{'':38}{'chosen':>10}{'reference':>12}{'torch sdpa':>12}")
    with torch.inference_mode():
        for tokens in (1, 32, 1024):
            for name, call in rows(tokens).items():
                show(f"{name}, {tokens} tokens", call)
        for name, queries, lengths in (
            ("decode, 1 sequence of 1024", [1], [1024]),
            ("decode, 1 sequence of 4096", [1], [4096]),
            ("decode, 32 sequences of 320", [1] * 32, [320] * 32),
            ("prefill, 1 sequence of 1024", [1024], [1024]),
        ):
            show(name, attention(queries, lengths), sdpa(queries, lengths))
            for kind, dtype in (("int8", torch.int8), ("int4", torch.uint8)):
                show(f"{name}, {kind}", attention(queries, lengths, kept=dtype))
            show(f"{name}, window 512", attention(queries, lengths, window=512))
        for outputs in (960, 3072, 49152):
            for tokens in (1, 32):
                products(outputs, tokens)


def show(name: str, call: Callable[[], Any], other: Callable[[], Any] | None = None) -> None:
    chosen = microseconds(call)
    with ops.use("reference"):
        reference = microseconds(call)
    peer = f"{microseconds(other):12.1f}" if other is not None else ""
    print(f"{name:38}{chosen:10.1f}{reference:12.1f}{peer}")


def microseconds(call: Callable[[], Any]) -> float:
    for _ in range(3):
        call()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def rows(tokens: int) -> dict[str, Callable[[], Any]]:
    x, residual = randn(tokens, HIDDEN), randn(tokens, HIDDEN)
    weight, gate_up = randn(HIDDEN), randn(tokens, 2 * INTERMEDIATE)
    qkv, table = randn(tokens, (HEADS + 2 * KV_HEADS) * HEAD_DIM), torch.randn(2048, HEAD_DIM)
    k_cache, v_cache = (randn(-(-tokens // BLOCK), KV_HEADS, BLOCK, HEAD_DIM) for _ in range(2))
    at = torch.arange(tokens)
    return {
        "rms_norm": lambda: ops.rms_norm(x, weight, 1e-5),
        "add_rms_norm": lambda: ops.add_rms_norm(x, residual, weight, 1e-5),
        "silu_and_mul": lambda: ops.silu_and_mul(gate_up),
        "gelu_tanh_and_mul": lambda: ops.gelu_tanh_and_mul(gate_up),
        "rope_and_cache": lambda: ops.rope_and_cache(qkv, at, table, k_cache, v_cache, at, HEADS, KV_HEADS),
    }


def attention(
    queries: Sequence[int],
    lengths: Sequence[int],
    *,
    kept: torch.dtype = DTYPE,
    window: int | None = None,
) -> Callable[[], Tensor]:
    """`kept`: dtype of keys and values; activations are float32 beside whole numbers."""
    used = -(-max(lengths) // BLOCK)
    k_cache, v_cache = (randn(used * len(lengths), KV_HEADS, BLOCK, HEAD_DIM) for _ in range(2))
    tables = torch.randperm(used * len(lengths)).to(torch.int32).view(len(lengths), used)
    starts = torch.tensor([0, *queries]).cumsum(0).to(torch.int32)
    where = (tables, starts, torch.tensor(lengths, dtype=torch.int32))
    q, scales = randn(sum(queries), HEADS, HEAD_DIM), None
    if kept in ops.WHOLE_NUMBERS:
        (k_cache, k_scales), (v_cache, v_scales) = (quantize_heads(x, kept) for x in (k_cache, v_cache))
        q, scales = q.float(), torch.stack((k_scales, v_scales), dim=2)
    scale, longest = HEAD_DIM**-0.5, (max(queries), max(lengths))
    return lambda: ops.paged_attention(q, k_cache, v_cache, *where, scale, *longest, scales, window)


def sdpa(queries: Sequence[int], lengths: Sequence[int]) -> Callable[[], Tensor]:
    q = randn(len(queries), HEADS, queries[0], HEAD_DIM)
    k, v = (randn(len(queries), KV_HEADS, lengths[0], HEAD_DIM) for _ in range(2))
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (k, v))
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=queries[0] > 1)


def products(outputs: int, tokens: int) -> None:
    x, weight = randn(tokens, HIDDEN), randn(outputs, HIDDEN)
    packed = ops.pack_weight(weight)
    plain, fast = microseconds(lambda: F.linear(x, weight)), microseconds(lambda: ops.linear(x, packed))
    print(f"{f'linear {HIDDEN} to {outputs}, {tokens} tokens':38}{fast:10.1f}{plain:12.1f}")


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape).to(DTYPE)


if __name__ == "__main__":
    main()
