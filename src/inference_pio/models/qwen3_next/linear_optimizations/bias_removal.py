"""Biases: attention layers may have them (`attention_bias`), published checkpoints have none."""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.layers import Linear
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.optimization import OptimizationInterface


class BiasRemoval(OptimizationInterface):
    """Exact: a bias goes where it is zero throughout, and nowhere else."""

    def apply(self, model: nn.Module, config: Qwen3NextConfig) -> nn.Module:
        if config.use_bias_removal_optimization:
            for linear in _biased(model):
                if linear.bias is not None and not linear.bias.any():
                    linear.bias = None
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        kept = len(_biased(model))
        return {
            "name": "bias removal",
            "category": "hardware",
            "status": "dormant" if kept else "active",
            "exact": True,
            "reason": f"{kept} biases of attention layers are kept" if kept else "no linear map adds a bias",
        }


def _biased(model: nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear) and module.bias is not None]
