"""Rows that nobody reads are not computed.

Only the last token of each sequence needs logits, so behind the last layer's attention all other rows are dropped:
the last feed-forward block, the final norm and the head run on R rows instead of T. Behind an image that is a
lot: 1024 × 1024 pixels are 1,024 tokens, none of which needs logits. The head of Qwen3-VL-2B is 18 % of the weights
that a token is multiplied with;
`benchmarks/benchmark_optimization_impact.py` measures what that is worth.
"""

from __future__ import annotations

from torch import Tensor


def keep_needed_rows(x_TD: Tensor, residual_TD: Tensor, last_token_R: Tensor) -> tuple[Tensor, Tensor]:
    """Both [T, D] reduced to the rows named; untouched where every row is needed, as in decoding."""
    if last_token_R.shape[0] == x_TD.shape[0]:
        return x_TD, residual_TD
    return x_TD.index_select(0, last_token_R), residual_TD.index_select(0, last_token_R)
