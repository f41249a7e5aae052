"""The optional part of the model's contract: a layer of the checkpoint that guesses what comes after the next token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from inference_pio.plugin.batch import ForwardBatch

# T tokens of a step, R rows that need logits, S sequences, D hidden size, V vocabulary


@runtime_checkable
class DraftingModel(Protocol):
    """A model with multi-token prediction (Gloeckle et al. 2024; DeepSeek-V3, DeepSeek-AI 2024, section 2.2).

    Its drafting layer makes from h_t, the hidden state with which the model predicted token t + 1, and from that token
    a hidden state that predicts token t + 2, and with what it made and that token goes on to t + 3. It attends to a
    cache of its own, the last of `caches`, and only drafting reads that: what is wrong in it makes wrong drafts, never
    wrong tokens.

    What h_t and token t + 1 leave lies in the place of token t + 1, not of t: a block then depends on nothing behind
    it and can be shared like any other. In front of token 0, and of the first token after a part that the prefix cache
    gave, no hidden state is known: zeros stand for it, in one row.

    A plugin says in `ModelPlugin.with_drafting` with which configuration its model has the layer.
    """

    can_draft: bool
    """Whether this model was built with the layer; the methods below are called only then."""

    def forward_all(self, batch: ForwardBatch, caches: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Logits [R, V] as `forward` gives them, and h [T, D] of every row."""

    def remember(self, hidden_TD: Tensor, batch: ForwardBatch, caches: Sequence[Any]) -> None:
        """Fill the drafting layer's cache for the tokens of a step that has run.

        Args:
            hidden_TD: of each row, h of the token before it in its sequence.
        """

    def draft(self, hidden_SD: Tensor, batch: ForwardBatch, caches: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Logits [S, V] of what comes behind the one token of each sequence, and the hidden states [S, D] to go on
        from.

        Args:
            hidden_SD: h of the token before, or what the last call gave where that token is a draft itself.
            batch: one row for each sequence, all of which need logits.
        """
