"""Residual addition and RMSNorm in one pass over the hidden states."""

from __future__ import annotations

from torch import Tensor

from inference_pio import ops
from inference_pio.layers import RMSNorm
from inference_pio.models.llama.config import LlamaConfig
from inference_pio.plugin.facts import TechniqueFact


class FusedResidualNorm(RMSNorm):
    """Adds what a block made to the residual stream and normalises the sum."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config.hidden_size, config.rms_norm_eps)
        self._add = self._fused if config.use_fused_layer_norm else self._separate

    def add(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        """(norm(residual + x), residual + x); the residual given may be overwritten."""
        return self._add(x_TD, residual_TD)

    def _fused(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        return ops.add_rms_norm(x_TD, residual_TD, self.weight, self.eps)

    def _separate(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        residual_TD = residual_TD + x_TD
        return self(residual_TD), residual_TD


def technique(config: LlamaConfig) -> TechniqueFact:
    return TechniqueFact(
        "fused layer norm",
        "hardware",
        "active" if config.use_fused_layer_norm else "dormant",
        exact=True,
        reason="residual addition and RMSNorm in one pass"
        if config.use_fused_layer_norm
        else "use_fused_layer_norm is off",
    )
