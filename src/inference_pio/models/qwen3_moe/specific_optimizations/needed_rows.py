"""Behind the last layer's attention only the rows that need logits go on.

For a mixture that saves more than arithmetic. A prompt's 512 rows choose nearly all of the last layer's 128 experts,
340 MB of weights in 4 bits; its one last row chooses 8 of them. `benchmarks/benchmark_optimization_impact.py` measures
what it is worth.
"""

from __future__ import annotations

from torch import Tensor


def only_needed(x_TD: Tensor, residual_TD: Tensor, needed_R: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `needed` of both, in their order; both as they are where that is all of them, as in decoding."""
    if len(needed_R) == len(x_TD):
        return x_TD, residual_TD
    return x_TD.index_select(0, needed_R), residual_TD.index_select(0, needed_R)
