"""Cutting a model: what is taken out is kept, so that it can be put back exactly."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import nn

from inference_pio.optimizations.technique import Technique

_ATTRIBUTE = "_surgery"


class Surgery(Technique):
    """Acts on loaded weights and remembers what it took out, which `undo` puts back.

    What was taken out stays in memory: it is work that is saved, not memory.
    """

    family = "model surgery"
    category = "hardware"
    stage = "weights"

    def apply(self, model: nn.Module, config: Any) -> nn.Module:
        removed = self.cut(model, config)
        if removed is not None:
            _records(model)[self.name] = removed
        return model

    def undo(self, model: nn.Module) -> nn.Module:
        """The model as it was, bit for bit; nothing happens where nothing was cut."""
        removed = _records(model).pop(self.name, None)
        if removed is not None:
            self.restore(model, removed)
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        removed = _records(model).get(self.name)
        return {**self.facts(), "removed": self.describe(removed) if removed is not None else {}}

    @abstractmethod
    def cut(self, model: nn.Module, config: Any) -> Any:
        """Change the model; what `restore` needs, or None where there was nothing to cut."""

    @abstractmethod
    def restore(self, model: nn.Module, removed: Any) -> None:
        """Put back what `cut` took out."""

    @abstractmethod
    def describe(self, removed: Any) -> dict[str, Any]:
        """What was taken out, in figures."""


def _records(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = vars(model).setdefault(_ATTRIBUTE, {})
    return found
