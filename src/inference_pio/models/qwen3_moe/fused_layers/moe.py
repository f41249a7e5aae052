"""The feed-forward block of a layer with experts: a softmax over all of them chooses a few for each token.

Router and experts are one operation each. There is no shared expert, no bias, no group of experts, and nothing is
dropped: whatever the router says is computed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.layers import Experts
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import TechniqueFact

# T tokens, D hidden size, E experts, K of them per token


class Router(nn.Module):
    """The K experts of the largest softmax(x Wᵀ), and their probabilities, over their sum with `norm_topk_prob`.

    Every rank routes every token: the weight is replicated. It stays in the dtype of the model and is never cut into
    blocks: a wrong expert costs more than its 2,048 · 128 weights.
    """

    def __init__(self, config: Qwen3MoeConfig) -> None:
        super().__init__()
        self.per_token, self.normalize = config.num_experts_per_tok, config.norm_topk_prob
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size), requires_grad=False)

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        return ops.top_experts(x_TD, self.weight, self.per_token, self.normalize)


class SparseMoe(nn.Module):
    """Σ over a token's experts of probability · down(silu(gate(x)) · up(x))."""

    def __init__(self, config: Qwen3MoeConfig, shard: Shard) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config.num_experts, config.hidden_size, config.moe_intermediate_size, shard)

    def forward(self, x_TD: Tensor) -> Tensor:
        chosen_TK, weights_TK = self.gate(x_TD)
        y_TD: Tensor = self.experts(x_TD, chosen_TK, weights_TK)
        return y_TD

    def scratch_bytes(self, tokens: int, sequences: int, context: int, itemsize: int) -> int:  # noqa: ARG002
        return self.experts.bytes_of_a_call(self.gate.per_token, tokens, itemsize)


def technique(config: Qwen3MoeConfig) -> TechniqueFact:
    layers = sum(config.has_experts(layer) for layer in range(config.num_hidden_layers))
    return TechniqueFact(
        "grouped experts",
        "hardware",
        "active" if layers else "not applicable",
        exact=True,
        reason=f"{layers} of {config.num_hidden_layers} layers send a token through {config.num_experts_per_tok} of "
        f"{config.num_experts} experts; tokens are sorted by expert, and one that nobody chose is not read"
        if layers
        else "no layer has experts",
    )
