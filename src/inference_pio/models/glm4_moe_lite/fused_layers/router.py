"""Which experts a token goes through (DeepSeek-AI 2024, DeepSeek-V3, section 2.1.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig

# T tokens, D hidden size, E experts, G groups of them, K experts of a token


class Router(nn.Module):
    """Scores are sigmoids. A bias that balanced the experts in training is added to choose, and not to weigh.

    Parameters and all of the arithmetic are float32, whatever the rest of the model uses: close scores decide.
    """

    parameter_dtype = torch.float32

    def __init__(self, config: Glm4MoeLiteConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.empty(config.n_routed_experts, config.hidden_size), requires_grad=False
        )
        self.e_score_correction_bias = nn.Parameter(torch.empty(config.n_routed_experts), requires_grad=False)
        self.per_token, self.factor = config.num_experts_per_tok, config.routed_scaling_factor
        self.groups, self.groups_per_token = config.n_group, config.topk_group
        self._allowed = _everywhere if self.groups == 1 else self._in_the_best_groups
        self._share = _sum_to_one if config.norm_topk_prob else _as_they_are

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Chosen experts [T, K] int64, and their weights [T, K] float32."""
        scores_TE = F.linear(x_TD.float(), self.weight).sigmoid()
        allowed_TE = self._allowed(scores_TE + self.e_score_correction_bias)
        chosen_TK = allowed_TE.topk(self.per_token, dim=-1).indices
        return chosen_TK, self._share(scores_TE.gather(1, chosen_TK)) * self.factor

    def _in_the_best_groups(self, biased_TE: Tensor) -> Tensor:
        """Experts of groups whose two best do not add up to enough are out of the choice."""
        biased_TGe = biased_TE.unflatten(1, (self.groups, -1))
        worth_TG = biased_TGe.topk(2, dim=-1).values.sum(dim=-1)
        best_TG = worth_TG.topk(self.groups_per_token, dim=-1).indices
        out_TG = torch.ones_like(worth_TG, dtype=torch.bool).scatter(1, best_TG, False)
        allowed_TE: Tensor = biased_TGe.masked_fill(out_TG[..., None], float("-inf")).flatten(1)
        return allowed_TE


def _everywhere(biased_TE: Tensor) -> Tensor:
    return biased_TE


def _sum_to_one(scores_TK: Tensor) -> Tensor:
    return scores_TK / (scores_TK.sum(dim=-1, keepdim=True) + 1e-20)


def _as_they_are(scores_TK: Tensor) -> Tensor:
    return scores_TK
