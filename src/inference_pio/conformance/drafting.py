"""C16: the layer that drafts, where a model has one (`plugin/drafting.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.case import DraftingReference, Raw
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.drafting import DraftingModel

_LENGTHS = (37, 1, 16)
_GUESSES = 4


class DraftingBareModel(BareModel):
    """A bare model that drafts, and what the engine does for it: of each sequence it keeps the last hidden state."""

    def __init__(self, plugin: ModelPlugin, path: Any, **options: Any) -> None:
        with open_checkpoint(path) as checkpoint:
            names = set(checkpoint.tensors)

        class Drafting(type(plugin)):  # type: ignore[misc]
            def read_config(self, raw: Raw, where: str) -> Any:
                config = self.with_drafting(super().read_config(raw, where), names)
                assert config is not None, "the reference's checkpoint has no layer that drafts"
                return config

        super().__init__(Drafting(), path, **options)
        model: Any = self.model
        assert isinstance(model, DraftingModel), "the model has no layer that drafts: see plugin/drafting.py"
        assert model.can_draft, "the model does not say that it can draft"
        self.drafting: DraftingModel = model
        self.last: dict[int, Tensor] = {}

    def restart(self) -> None:
        super().restart()
        self.last = {}

    def take_in(self, pieces: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        """As `run`, and the drafting layer remembers the step."""
        batch = self.batch(pieces)
        counts = [len(ids) for _, ids in pieces]
        with torch.inference_mode():
            logits, hidden = self.drafting.forward_all(batch, self.caches)
            before = []
            for (number, _), part in zip(pieces, hidden.split(counts), strict=True):
                before += [self.last.get(number, torch.zeros_like(part[:1])), part[:-1]]
                self.last[number] = part[-1:]
            self.drafting.remember(torch.cat(before), batch, self.caches)
        return list(logits.split(counts))

    def draft(self, tokens: Sequence[tuple[int, int]], hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(sequence number, its next token) each: logits and hidden states; it stays as long as it was."""
        lengths = list(self._lengths)
        if hidden is None:
            hidden = torch.cat([self.last[number] for number, _ in tokens])
        batch = self.batch([(number, [token_id]) for number, token_id in tokens])
        with torch.inference_mode():
            found = self.drafting.draft(hidden, batch, self.caches)
        self._lengths = lengths
        return found

    def guess(self, tokens: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
        """Logits [sequences, tokens of each, vocab_size]: each sequence goes on with these, guesses but the first."""
        logits, hidden, lengths = [], None, list(self._lengths)
        for place in range(len(tokens[0][1])):
            found, hidden = self.draft([(number, ids[place]) for number, ids in tokens], hidden)
            logits.append(found)
            for number, _ in tokens:
                self._lengths[number] += 1
        self._lengths = lengths
        return torch.stack(logits, dim=1)


def check_drafts(subject: Subject) -> None:
    """Logits of the layer that drafts equal the reference's: after a prompt in chunks, token by token, for further
    drafts, and in a batch; the model's own logits are those that it has without the layer.
    """
    if subject.case.drafting is None:
        return
    for tiny, raw in subject.case.tiny.items():
        reference = subject.case.drafting(raw)
        directory = subject.workdir / f"{subject.case.name}-{tiny}-drafting"
        directory.mkdir()
        path = reference.save(directory, "safetensors")
        model = DraftingBareModel(subject.plugin(), path, sequences=len(_LENGTHS))
        plain = BareModel(subject.plugin(), path)
        assert len(plain.specs) == len(model.specs) - 1, f"{tiny}: the layer has no cache spec of its own"
        _check_alone(reference, model, plain, raw["vocab_size"], tiny)
        _check_together(reference, model, raw["vocab_size"], tiny)


def _check_alone(
    reference: DraftingReference, model: DraftingBareModel, plain: BareModel, vocab_size: int, tiny: str
) -> None:
    ids, guesses = token_ids(_LENGTHS[0], vocab_size), token_ids(_GUESSES, vocab_size, 1)
    expected = reference.draft_logits(ids)
    own = plain.prefill(ids)
    for chunk in (len(ids), 5):
        model.restart()
        found = []
        for first in range(0, len(ids), chunk):
            if first:
                # Guesses that turn out wrong leave nothing behind.
                drafted = model.guess([(0, [ids[first], *guesses])])[0]
                assert_close(drafted[:1], expected[first : first + 1], f"{tiny}: draft behind {first} tokens")
            found += model.take_in([(0, ids[first : first + chunk])])
        assert_close(torch.cat(found), own, f"{tiny}: the model's own logits beside drafts")
    expected = reference.draft_logits([*ids, guesses[0]], guesses[1:])
    assert_close(model.guess([(0, guesses)])[0], expected[len(ids) :], f"{tiny}: draft after draft")


def _check_together(
    reference: DraftingReference, model: DraftingBareModel, vocab_size: int, tiny: str
) -> None:
    """Three sequences of different lengths: two prompts in one step, one that goes on beside a prompt that begins."""
    texts = [token_ids(length, vocab_size, seed) for seed, length in enumerate(_LENGTHS)]
    model.restart()
    model.take_in([(0, texts[0][:20]), (1, texts[1])])
    model.take_in([(2, texts[2]), (0, texts[0][20:])])
    guesses = [token_ids(_GUESSES, vocab_size, 7 + number) for number in range(len(texts))]
    order = (1, 2, 0)
    found = model.guess([(number, guesses[number]) for number in order])
    for row, number in zip(found, order, strict=True):
        expected = reference.draft_logits([*texts[number], guesses[number][0]], guesses[number][1:])
        assert_close(row, expected[len(texts[number]) :], f"{tiny}: sequence {number} of a batch of drafts")
