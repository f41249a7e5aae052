"""The standard's bias removal: biases that are zero throughout are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from inference_pio.layers import Linear
from inference_pio.plugin.optimization import OptimizationInterface


class ZeroBiasRemoval(OptimizationInterface):
    """Exact: acts only where every element of a bias is zero. One addition less per linear map, the same result.

    A plugin's own class says whose biases they are, and what is told of those that stay.
    """

    kept: ClassVar[str] = "biases are kept: they are not zero, or removal is off"

    def apply(self, model: nn.Module, config: Any) -> nn.Module:
        if config.use_bias_removal_optimization:
            for linear in _biased(model):
                if linear.bias is not None and not linear.bias.any():
                    linear.bias = None
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        biases = [linear.bias for linear in _biased(model) if linear.bias is not None]
        return {
            "name": "bias removal",
            "category": "hardware",
            "status": "dormant" if biases else "active",
            "exact": True,
            "reason": self.reason(biases),
        }

    def reason(self, biases: Sequence[Tensor]) -> str:
        """What is said of the biases that are still there."""
        return f"{len(biases)} {self.kept}" if biases else "no linear map adds a bias"


def _biased(model: nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear) and module.bias is not None]
