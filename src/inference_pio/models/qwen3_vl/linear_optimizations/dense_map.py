"""The vision tower's linear maps: always dense, and the cutting of an image into patches is one of them.

A convolution whose kernel is as wide as its stride sees each number once: on patches that lie one to a row it is the
matrix product of the rows with the flattened kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference_pio.plugin.facts import TechniqueFact


class DenseMap(nn.Module):
    """y = x Wᵀ + b, of which nothing is quantised whatever the text's weights are.

    What the tower rounds is in every token of an image, and in all layers behind it; its weights are a fifth of those
    of Qwen3-VL-2B.

    Args:
        in_shape: of the weight behind its first dimension, flattened in x: (C, T, P, P) for a convolution's kernels.
    """

    def __init__(self, in_shape: Sequence[int], out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, *in_shape), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.flatten(1), self.bias)


def technique() -> TechniqueFact:
    return TechniqueFact(
        "patch embedding as a matrix product",
        "hardware",
        "active",
        exact=True,
        reason="the convolution's kernel is as wide as its stride",
    )
