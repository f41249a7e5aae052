"""The vision tower: patches of images in, features for tokens of the text out.

A vision transformer (Dosovitskiy et al. 2021) with norms in front of its blocks. `Qwen3VLVisionModel` of transformers'
modeling_qwen3_vl is the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from inference_pio.models.qwen3_vl.attention.vision_attention import PORTION, VisionAttention
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
        for part in x.split(PORTION):
            part += self.mlp(self.norm2(part))
        return x


class VisionTower(nn.Module):
    """Features of images, each image as if it were alone."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.merge, self.head_dim = config.spatial_merge_size, config.head_dim
        self.deep_layers, self.out_features = config.deepstack_visual_indexes, config.out_hidden_size
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
        tokens = len(x) // self.merge**2
        features = x.new_empty(tokens, 1 + len(self.deep_layers), self.out_features)
        for number, block in enumerate(self._blocks()):
            x = block(x, turns, lengths)
            if number in self.deep_layers:
                place = self.deep_layers.index(number)
                features[:, 1 + place] = self.deepstack_merger_list[place](x)
        features[:, 0] = self.merger(x)
        flat: Tensor = features.flatten(1)
        return flat

    def _blocks(self) -> Iterator[VisionBlock]:
        return cast("Iterator[VisionBlock]", iter(self.blocks))


def encoder_bytes(config: VisionConfig, patches: int, itemsize: int) -> int:
    """What the tower holds at most while it encodes `patches` patches of one image, the weights left out.

    Whatever is made lies beside the pixels, the patches' angles and the features so far. The largest moments: positions
    are added up in float32; attention's output is mapped beside the stream, its norm, queries, keys and values; tokens
    are made of normalised patches. What one portion needs comes on top.

    Args:
        itemsize: bytes of one activation.
    """
    width, tokens = config.hidden_size, patches // config.spatial_merge_size**2
    part = tokens * config.out_hidden_size * itemsize
    stream = patches * width * itemsize
    positions = patches * width * 8 + 2 * stream
    turned = 2 * width * 4 * 4
    fed = 2 * (width + config.intermediate_size) * itemsize
    portion = min(patches, PORTION) * max(turned, fed)
    beside = patches * (config.patch_values * itemsize + config.head_dim * 12 + 64)
    features = part * (1 + len(config.deepstack_visual_indexes))
    return max(positions, 8 * stream, 4 * stream + part) + portion + beside + features
