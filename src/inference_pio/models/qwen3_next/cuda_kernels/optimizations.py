"""What lies between the merged projection of gated attention and the scores: gates apart, norms, rotation, cache write.

`ops.rope_and_cache` does the last three in one pass (torch reference everywhere, native on the CPU).
"""

from __future__ import annotations

from torch import Tensor

from inference_pio import ops
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def split_gate(projected_TF: Tensor, num_heads: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """(q|k|v [T, (N + 2M)·H], gate [T, N·H]) out of [q and gate of each head | k | v], [T, (2N + 2M)·H]."""
    starts, width = range(0, 2 * num_heads * head_dim, 2 * head_dim), projected_TF.shape[1]
    queries = [number for start in starts for number in (start, head_dim)]
    gates = [number for start in starts for number in (start + head_dim, head_dim)]
    rest = [starts.stop, width - starts.stop]
    return ops.take_columns(projected_TF, queries + rest), ops.take_columns(projected_TF, gates)


def technique() -> TechniqueFact:
    return techniques.fused_operations(
        "norms of heads, rotation and cache write are one, the delta rule of few tokens is another; of many tokens it "
        "runs in chunks of torch's operations"
    )
