"""The mixture: a token's best experts by softmax over all of them, and a shared expert behind a gate of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.layers import Experts, GatedMLP
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.linear_optimizations.weight_layout import DenseMap
from inference_pio.parallel import Shard

# T tokens, D hidden size, E experts, K experts of a token


class Router(DenseMap):
    """Scores of all experts; softmax over them in float32, then the best K, which may be made to sum to 1."""

    def __init__(self, config: Qwen3NextConfig) -> None:
        super().__init__(config.hidden_size, config.num_experts)
        self.per_token, self.normalises = config.num_experts_per_tok, config.norm_topk_prob

    def choose(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """(experts [T, K] int64, weights [T, K] float32).

        In 16 bits scores are rounded before softmax, as the model that was trained rounds them: near-ties fall as they
        do there.
        """
        if x_TD.dtype == torch.float32:
            return ops.top_experts(x_TD, self.weight, self.per_token, self.normalises)
        weights_TK, chosen_TK = self(x_TD).float().softmax(dim=-1).topk(self.per_token, dim=-1)
        if self.normalises:
            weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
        return chosen_TK, weights_TK


class Mixture(nn.Module):
    """Σ over a token's experts of weight · expert(x), plus sigmoid(gate(x)) · shared(x)."""

    def __init__(self, config: Qwen3NextConfig, shard: Shard) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.gate = Router(config)
        self.experts = Experts(config.num_experts, hidden, config.moe_intermediate_size, shard)
        self.shared_expert = GatedMLP(hidden, config.shared_expert_intermediate_size, shard)
        self.shared_expert_gate = DenseMap(hidden, 1)

    def forward(self, x_TD: Tensor) -> Tensor:
        routed_TD = self.experts(x_TD, *self.gate.choose(x_TD))
        return ops.add_shared(routed_TD, self.shared_expert(x_TD), self.shared_expert_gate(x_TD))

    def scratch_bytes(self, tokens: int, sequences: int, context: int, itemsize: int) -> int:  # noqa: ARG002
        return self.experts.bytes_of_a_call(self.gate.per_token, tokens, itemsize)
