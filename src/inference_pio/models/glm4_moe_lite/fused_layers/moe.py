"""The feed-forward block of a sparse layer: routed experts, and shared ones that every token goes through."""

from __future__ import annotations

from torch import Tensor, nn

from inference_pio import ops
from inference_pio.layers import Experts, GatedMLP
from inference_pio.models.glm4_moe_lite.config import DENSE, Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.fused_layers.router import Router
from inference_pio.parallel import Shard


class MoE(nn.Module):
    """experts(x) + shared(x): the shared experts have no gate, and are one block of their widths together."""

    def __init__(self, config: Glm4MoeLiteConfig, shard: Shard) -> None:
        super().__init__()
        width = config.moe_intermediate_size
        self.gate = Router(config)
        self.experts = Experts(config.n_routed_experts, config.hidden_size, width, shard)
        self.shared_experts = GatedMLP(config.hidden_size, config.n_shared_experts * width, shard)

    def forward(self, x_TD: Tensor) -> Tensor:
        routed_TD = self.experts(x_TD, *self.gate(x_TD))
        return ops.add_shared(routed_TD, self.shared_experts(x_TD))

    def scratch_bytes(self, tokens: int, sequences: int, context: int, itemsize: int) -> int:  # noqa: ARG002
        return self.experts.bytes_of_a_call(self.gate.per_token, tokens, itemsize)


def feed_forward(config: Glm4MoeLiteConfig, layer: int, shard: Shard) -> GatedMLP | MoE:
    """The block that this layer has."""
    if config.mlp_layer_types[layer] == DENSE:
        return GatedMLP(config.hidden_size, config.intermediate_size, shard)
    return MoE(config, shard)
