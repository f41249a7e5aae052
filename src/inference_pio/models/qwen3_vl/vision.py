"""The vision tower: patches of images in, features for tokens of the text out.

A vision transformer (Dosovitskiy et al. 2021) with norms in front of its blocks. `Qwen3VLVisionModel` of transformers'
modeling_qwen3_vl is the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from inference_pio.models.qwen3_vl.attention.vision_attention import VisionAttention
from inference_pio.models.qwen3_vl.config import VisionConfig
from inference_pio.models.qwen3_vl.fused_layers.patch_merger import EPS, PatchMerger
from inference_pio.models.qwen3_vl.fused_layers.vision_mlp import VisionMLP
from inference_pio.models.qwen3_vl.linear_optimizations.dense_map import DenseMap
from inference_pio.models.qwen3_vl.rotary_embeddings.patch_positions import (
    Grid,
    LearnedPositions,
    Places,
    patch_rotation,
)

# N patches of all images, M tokens of all images (N / merge²), D hidden size of the text, L layers of DeepStack


class PatchEmbedding(nn.Module):
    """Each patch as a vector: a convolution in time, height and width that never overlaps."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        kernel = (config.in_channels, config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = DenseMap(kernel, config.hidden_size)

    def forward(self, pixels_NF: Tensor) -> Tensor:
        x: Tensor = self.proj(pixels_NF)
        return x


class VisionBlock(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=EPS)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=EPS)
        self.attn = VisionAttention(config)
        self.mlp = VisionMLP(config)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], lengths: Sequence[int]) -> Tensor:
        x = x + self.attn(self.norm1(x), turns, lengths)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class VisionTower(nn.Module):
    """Features of images, each image as if it were alone."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.merge, self.head_dim = config.spatial_merge_size, config.head_dim
        self.deep_layers = config.deepstack_visual_indexes
        self.patch_embed = PatchEmbedding(config)
        self.pos_embed = LearnedPositions(config)
        self.blocks = nn.ModuleList([VisionBlock(config) for _ in range(config.depth)])
        self.merger = PatchMerger(config, together=False)
        self.deepstack_merger_list = nn.ModuleList(
            [PatchMerger(config, together=True) for _ in self.deep_layers]
        )

    def forward(self, pixels_NF: Tensor, grids: Sequence[Grid]) -> Tensor:
        """[M, D · (1 + L)]: what replaces a token's embedding, then what is added behind each of the first L layers.

        Args:
            pixels_NF: patches of all images, one image behind the other, each in blocks of merge × merge patches.
            grids: (time, height, width) of each image, in patches.
        """
        weight = self.pos_embed.weight
        places = Places.of(grids, self.merge, weight.device)
        x = self.patch_embed(pixels_NF.to(weight.device, weight.dtype))
        x = x + self.pos_embed(places).to(x.dtype)
        turns = patch_rotation(places, self.head_dim)
        lengths = [height * width for frames, height, width in grids for _ in range(frames)]
        deep = []
        mergers = iter(self.deepstack_merger_list)
        for number, block in enumerate(self._blocks()):
            x = block(x, turns, lengths)
            if number in self.deep_layers:
                deep.append(next(mergers)(x))
        return torch.cat([self.merger(x), *deep], dim=1)

    def _blocks(self) -> Iterator[VisionBlock]:
        return cast("Iterator[VisionBlock]", iter(self.blocks))


def encoder_bytes(config: VisionConfig, patches: int, itemsize: int) -> int:
    """What the tower holds at most while it encodes `patches` patches of one image, the weights left out.

    The largest moments: positions are added in float32; queries and keys are turned in float32 beside the stream, its
    norm, and queries, keys and values; the outputs of attention are put in order; both sides of a GELU are there.
    Beside each lie angles, features so far and, at the end, features twice.

    Args:
        itemsize: bytes of one activation.
    """
    copies = 2 + 2 * config.intermediate_size / config.hidden_size
    moments = (12 + itemsize, 6 * itemsize + 20, 10 * itemsize, (1 + copies) * itemsize)
    tokens = patches // config.spatial_merge_size**2
    features = tokens * config.out_hidden_size * (1 + len(config.deepstack_visual_indexes)) * itemsize
    angles = patches * (config.head_dim * 12 + 64)
    pixels = patches * config.patch_values * itemsize
    return int(patches * config.hidden_size * max(moments)) + 2 * features + angles + pixels
