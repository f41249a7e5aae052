"""The weight that makes keys and values from latents, taken apart once so that attention can use either half alone."""

from __future__ import annotations

import torch
from torch import nn

from inference_pio import ops


class UpProjection(nn.Module):
    """Rows of the checkpoint's kv_b_proj are, head by head, those of its key and below them those of its value.

    After loading `weight` is gone: its two parts hold it.
    """

    def __init__(self, num_heads: int, key_dim: int, value_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.value_dim = num_heads, key_dim, value_dim
        rows = num_heads * (key_dim + value_dim)
        self.weight: nn.Parameter | None = nn.Parameter(torch.empty(rows, latent_dim), requires_grad=False)
        self.keys: nn.Parameter | None = None
        self.values: nn.Parameter | None = None

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        assert self.weight is not None
        heads = self.weight.data.unflatten(0, (self.num_heads, -1))
        keys, values = (
            nn.Parameter(part.contiguous(), requires_grad=False)
            for part in heads.split([self.key_dim, self.value_dim], dim=1)
        )
        self.keys, self.values, self.weight = keys, values, None

    def parts(self) -> ops.UpProjections:
        assert self.keys is not None, "weights are not loaded"
        assert self.values is not None
        return ops.UpProjections(self.keys, self.values)
