"""Rows that nobody reads are not computed.

Only the last token of each sequence needs logits, so behind the last layer's attention all other rows are dropped: the
last layer's experts, the final norm and the head run on R rows instead of T. The head of GLM-4.7-Flash has 317 million
weights, a token's experts in one layer 47 million.
"""

from __future__ import annotations

from torch import Tensor


def keep_needed_rows(x_TD: Tensor, residual_TD: Tensor, last_token_R: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both [T, D] reduced to the rows named; untouched where every row is needed (None), as in decoding."""
    if last_token_R is None or last_token_R.shape[0] == x_TD.shape[0]:
        return x_TD, residual_TD
    return x_TD.index_select(0, last_token_R), residual_TD.index_select(0, last_token_R)
