"""Residual addition and norm in one pass over the hidden states."""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.layers import ResidualNorm
from inference_pio.optimizations.technique import Situation, Standing, Technique, active, not_applicable


class FusedLayerNorm(Technique):
    """The residual stream is read and written once where it would be twice."""

    name = "fused_layer_norm"
    title = "fused layer norm"
    family = "fused layer norm"
    category = "hardware"
    exact = True
    flags = ("use_fused_layer_norm",)
    shows_on = "decode"
    by_flag = True

    def standing(self, at: Situation) -> Standing:
        if not _norms(at.model):
            return not_applicable("no norm of this model adds to a residual stream")
        return active("residual addition and RMSNorm in one pass")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        for norm in _norms(model):
            norm.fuse()
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "norms": sum(norm.fused for norm in _norms(model))}


def _norms(model: nn.Module) -> list[ResidualNorm]:
    return [module for module in model.modules() if isinstance(module, ResidualNorm)]
