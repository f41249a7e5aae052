"""A plugin's tiny model in the place of the engine tests' artificial ones."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from torch import Tensor, nn

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.subject import Subject
from inference_pio.plugin.facts import PrefixPolicy


@functools.cache
def _loaded(plugin: str) -> tuple[BareModel, PrefixPolicy]:
    with tempfile.TemporaryDirectory() as directory:
        subject = Subject.of(plugin, Path(directory), collected={})
        bare = BareModel(subject.plugin(), subject.checkpoint(subject.case.typical))
    return bare, subject.plugin().prefix_policy(bare.config)


class TinyModel(nn.Module):
    """Says only the first `vocab_size` tokens of its vocabulary."""

    def __init__(self, plugin: str, vocab_size: int) -> None:
        super().__init__()
        pytest.importorskip(f"inference_pio.models.{plugin}")
        bare, self.policy = _loaded(plugin)
        self._model, self.specs, self._vocab_size = bare.model, bare.specs, vocab_size

    def forward(self, batch, caches) -> Tensor:
        return self._model(batch, caches)[:, : self._vocab_size].contiguous()
