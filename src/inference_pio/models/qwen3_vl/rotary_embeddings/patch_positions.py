"""Where an image's patches stand in the vision tower: a learned vector, and a rotation in two axes.

Patches come in blocks of merge × merge, block by block along the rows of blocks: what becomes one token lies together.
References: `get_vision_interpolation_indices_and_weights`, `get_vision_position_ids` and `Qwen3VLVisionRotaryEmbedding`
of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.models.qwen3_vl.config import VisionConfig

# N patches of all images, D hidden size of the tower, H head size of the tower
Grid = tuple[int, int, int]
_THETA = 10_000.0


@dataclass(frozen=True, eq=False)
class Places:
    """row, column  [N] int64, of each patch in its image
    height, width   [N] int64, of the patch's image, in patches
    """

    row: Tensor
    column: Tensor
    height: Tensor
    width: Tensor

    @classmethod
    def of(cls, grids: Sequence[Grid], merge: int, device: torch.device) -> Places:
        """Of the patches of all images, one image behind the other."""
        pieces = [_block_by_block(grid, merge) for grid in grids]
        columns = [torch.cat([piece[number] for piece in pieces]).to(device) for number in range(4)]
        return cls(*columns)


class LearnedPositions(nn.Module):
    """A square grid of vectors, stretched over each image's own grid: corners on corners, bilinear between.

    Weights of the four neighbours are float32, as is their sum: Transformers 5.23 multiplies the vectors in their own
    type with float32 weights.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.side = round(config.num_position_embeddings**0.5)
        self.weight = nn.Parameter(
            torch.empty(config.num_position_embeddings, config.hidden_size), requires_grad=False
        )

    def forward(self, places: Places) -> Tensor:
        """[N, D] float32."""
        above, below, down = self._between(places.row, places.height)
        left, right, across = self._between(places.column, places.width)
        corners = (
            (above * self.side + left, (1 - down) * (1 - across)),
            (above * self.side + right, (1 - down) * across),
            (below * self.side + left, down * (1 - across)),
            (below * self.side + right, down * across),
        )
        total = self.weight.new_zeros(len(places.row), self.weight.shape[1], dtype=torch.float32)
        for index_N, share_N in corners:
            total += self.weight[index_N] * share_N[:, None]
        return total

    def _between(self, place_N: Tensor, size_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Grid lines on both sides of each place, and how far it is from the first to the second."""
        exact = place_N.float() * (self.side - 1) / (size_N - 1).clamp(min=1)
        first = exact.floor()
        line = first.long()
        return line, (line + 1).clamp(max=self.side - 1), exact - first


def patch_rotation(places: Places, head_dim: int) -> tuple[Tensor, Tensor]:
    """(cosines, sines), [N, head_dim] float32 each: a quarter of a head turns by row, the next by column, in pairs
    with the two other quarters.
    """
    frequencies = ops.inverse_frequencies(_THETA, head_dim // 2).to(places.row.device)
    angles = torch.stack([places.row, places.column], dim=1)[..., None].float() * frequencies
    whole = angles.flatten(1).repeat(1, 2)
    return whole.cos(), whole.sin()


def _block_by_block(grid: Grid, merge: int) -> tuple[Tensor, ...]:
    frames, height, width = grid
    sides = (torch.arange(height), torch.arange(width))
    blocks = (height // merge, merge, width // merge, merge)
    places = [
        one.reshape(blocks).transpose(1, 2).flatten().repeat(frames)
        for one in torch.meshgrid(*sides, indexing="ij")
    ]
    return *places, torch.full_like(places[0], height), torch.full_like(places[0], width)
