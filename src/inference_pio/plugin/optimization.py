"""The standard's interface for optimisations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn


class OptimizationInterface(ABC):
    """One technique. `apply` may change the model in place; it returns the model to use from then on."""

    @abstractmethod
    def apply(self, model: nn.Module, config: Any) -> nn.Module:
        """Apply the optimisation under `config` and return the optimised model."""

    @abstractmethod
    def get_report(self, model: nn.Module) -> dict[str, Any]:
        """What was done to `model`: at least `name`, `status` ("active", "dormant", "not applicable"), `reason`."""
