"""From patches to tokens of the text: neighbours are put side by side and mapped to the text's hidden width.

Behind the last layer each patch is normalised before that; behind the layers of DeepStack ("DeepStack", Meng et al.
2024) the neighbours together are.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from inference_pio.models.qwen3_vl.config import VisionConfig
from inference_pio.models.qwen3_vl.linear_optimizations.dense_map import DenseMap

EPS = 1e-6


class PatchMerger(nn.Module):
    """[N, D] -> [N / merge², out_hidden_size]: fc2(gelu(fc1(norm(x)))), gelu exact; the norm is a LayerNorm.

    Args:
        together: normalise the merge² neighbours as one, instead of each.
    """

    def __init__(self, config: VisionConfig, *, together: bool) -> None:
        super().__init__()
        self.width = config.hidden_size * config.spatial_merge_size**2
        self.norm = nn.LayerNorm(self.width if together else config.hidden_size, eps=EPS)
        self.linear_fc1 = DenseMap((self.width,), self.width)
        self.linear_fc2 = DenseMap((self.width,), config.out_hidden_size)

    def forward(self, x_ND: Tensor) -> Tensor:
        normalised = self.norm(x_ND.reshape(-1, *self.norm.normalized_shape)).reshape(-1, self.width)
        tokens: Tensor = self.linear_fc2(functional.gelu(self.linear_fc1(normalised)))
        return tokens
