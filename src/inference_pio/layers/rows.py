"""Rows that nobody reads are not computed."""

from __future__ import annotations

from torch import Tensor


def keep_rows(needed_R: Tensor, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `needed` of both, in their order; both as they are where that is every row, as in decoding.

    Only the last token of a sequence needs logits, so behind the last layer's attention a model goes on with R rows
    instead of T: its last feed-forward block, the last norm and the head.
    """
    if len(needed_R) == len(x_TD):
        return x_TD, residual_TD
    return x_TD.index_select(0, needed_R), residual_TD.index_select(0, needed_R)
