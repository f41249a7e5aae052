"""Rotary positions in three axes, dealt out in turns: pair 0 of a head turns by time, 1 by height, 2 by width, 3 by …

Rotary positions: Su et al. 2021; in axes: "Qwen2-VL" (Wang et al. 2024), section 2.1; in turns instead of one axis
behind the other: Qwen3-VL, `Qwen3VLTextRotaryEmbedding` of transformers' modeling_qwen3_vl. Where an axis has used up
its pairs, time takes its turns. A token of a text has one position in all axes: then this is the rotation of qwen3.
YaRN, for texts longer than those of the training: Peng et al. 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.models.qwen3_vl.cuda_kernels.optimizations import pick_axes
from inference_pio.plugin.batch import ForwardBatch


class RotaryEmbedding(nn.Module):
    """cos_sin [positions, head_dim] float32: cosines in the first half of the columns, sines in the second."""

    def __init__(self, config: Qwen3VLConfig) -> None:
        super().__init__()
        self.rope, self.head_dim = config.rope, config.head_dim
        self.max_positions = config.max_position_embeddings
        self.section = config.mrope_section
        self.cos_sin = torch.empty(0)
        self.axis_H = torch.empty(0, dtype=torch.int64)

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002
        self.cos_sin = ops.rotary_table(self.rope, self.head_dim, self.max_positions).to(device)
        self.axis_H = axis_of_columns(self.section).to(device)

    def forward(self, batch: ForwardBatch) -> tuple[Tensor, Tensor]:
        """(rows [T], table [positions or T, head_dim]): row rows[t] of the table turns token t.

        A step whose tokens have one position on all axes reads the common table; one with images has a row of its own
        for each token.
        """
        if batch.rope_positions is None:
            return batch.positions, self.cos_sin
        if len(batch.rope_positions) == 1:
            return batch.rope_positions[0], self.cos_sin
        table_TH = pick_axes(self.cos_sin, batch.rope_positions, self.axis_H)
        return torch.arange(len(table_TH), device=table_TH.device), table_TH


def axis_of_columns(section: tuple[int, int, int]) -> Tensor:
    """[head_dim] int64: 0, 1 or 2 for time, height and width, of each cosine and then of each sine."""
    axis = torch.zeros(sum(section), dtype=torch.int64)
    for number in (1, 2):
        axis[number : 3 * section[number] : 3] = number
    return axis.repeat(2)
