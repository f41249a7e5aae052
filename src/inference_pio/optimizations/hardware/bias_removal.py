"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

Checkpoints that were converted between frameworks often carry such biases. One that is not zero stays: what it adds
cannot be had for less.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.layers import Linear
from inference_pio.optimizations.hardware.surgery import Surgery
from inference_pio.optimizations.technique import Situation, Standing, active, not_applicable

_Removed = list[tuple[Linear, nn.Parameter]]


class BiasRemoval(Surgery):
    """Exact, bit for bit: adding zero changes nothing."""

    name = "bias_removal"
    title = "bias removal"
    family = "bias removal"
    exact = True
    flags = ("use_bias_removal_optimization",)
    shows_on = "decode"

    def standing(self, at: Situation) -> Standing:
        biased = len(_biased(at.model))
        if not biased:
            return not_applicable("no linear map of this model adds a bias")
        return active(f"of {biased} biases those that are zero throughout are dropped")

    def cut(self, model: nn.Module, config: Any) -> _Removed | None:  # noqa: ARG002
        removed: _Removed = []
        for linear in _biased(model):
            if linear.bias is not None and not linear.bias.any():
                removed.append((linear, linear.bias))
                linear.bias = None
        return removed or None

    def restore(self, model: nn.Module, removed: _Removed) -> None:  # noqa: ARG002
        for linear, bias in removed:
            linear.bias = bias

    def describe(self, removed: _Removed) -> dict[str, Any]:
        return {"biases": len(removed), "values": sum(bias.numel() for _, bias in removed)}

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**super().get_report(model), "kept": len(_biased(model))}


def _biased(model: nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear) and module.bias is not None]
