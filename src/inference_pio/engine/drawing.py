"""The tokens of a step: its forward pass, and what is drawn from its logits, some rows of them at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from inference_pio.engine.runner import ModelRunner
from inference_pio.engine.sampler import Sample, sample
from inference_pio.engine.script import follow
from inference_pio.engine.sequence import Drafts, Sequence
from inference_pio.plugin.batch import ForwardBatch


def draw_all(
    runner: ModelRunner, batch: ForwardBatch, sequences: list[Sequence], drafts: Drafts
) -> list[list[Sample]]:
    """Run a step; the next tokens of each sequence that gets any. Logits of a piece are gone when the next is made."""
    computed = runner.run(batch)
    drawn: list[list[Sample]] = []
    for some, rows in pieces(sequences, drafts, runner.logit_rows):
        drawn += _draw(runner.logits(computed[rows]), some, drafts)
    return drawn


def pieces(
    sequences: list[Sequence], drafts: Drafts, most: int | None
) -> Iterator[tuple[list[Sequence], slice]]:
    """Sequences in order, and their rows: one behind the last token and one behind each draft; at most `most` rows at
    once, or those of one sequence where it has more. All in one piece where `most` is None.
    """
    if most is None:
        yield sequences, slice(None)
        return
    some: list[Sequence] = []
    start = end = 0
    for sequence in sequences:
        rows = 1 + len(drafts.get(sequence, ()))
        if some and end + rows - start > most:
            yield some, slice(start, end)
            some, start = [], end
        some.append(sequence)
        end += rows
    if some:
        yield some, slice(start, end)


def _draw(logits_RV: Tensor, sequences: list[Sequence], drafts: Drafts) -> list[list[Sample]]:
    return follow(logits_RV, sequences, sample(logits_RV, sequences, drafts))
