"""Behind the last layer's mixer only rows that need logits go on.

In a prompt that is one row: the last mixture (up to 10 of 512 experts for every token), the final norm and the head
run on it alone. `benchmarks/benchmark_optimization_impact.py` measures what that is worth.
"""

from __future__ import annotations

from torch import Tensor


def only_needed(rows_R: Tensor | None, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of both that are named; both as they are where that is all of them (None)."""
    if rows_R is None or len(rows_R) == len(x_TD):
        return x_TD, residual_TD
    return x_TD[rows_R], residual_TD[rows_R]
