"""Answers that are given: what the model thinks of each of their tokens, under everything that the engine does."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from inference_pio.engine.sampler import Sample

if TYPE_CHECKING:
    from inference_pio.engine.sequence import Sequence


@dataclass(frozen=True)
class Script:
    """The tokens of an answer, taken in place of those that would be drawn.

    logits  in front of each token, [vocab_size], as they come
    """

    token_ids: Items[int]
    logits: list[Tensor] = field(default_factory=list)


def follow(logits_RV: Tensor, sequences: list[Sequence], samples: list[list[Sample]]) -> list[list[Sample]]:
    """What was drawn, replaced where a script says what comes. Nothing is drafted where scripts are (one row each)."""
    followed = []
    for row, (sequence, drawn) in enumerate(zip(sequences, samples, strict=True)):
        script = sequence.request.script
        if script is not None:
            script.logits.append(logits_RV[row].clone())
            drawn = [Sample(script.token_ids[sequence.num_generated_tokens])]
        followed.append(drawn)
    return followed
