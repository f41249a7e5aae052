"""Transformers' qwen3_vl with random weights, and its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from inference_pio.conformance.case import CheckpointKind, Raw

_SHARD = "60KB"
Grid = tuple[int, int, int]


class TransformersQwen3VL:
    """Implements `ReferenceModel`. Every parameter is random, norms and biases too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.model = transformers.Qwen3VLForConditionalGeneration(reference_config(raw)).float().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim > 1:
                    scale = 1.5 / parameter[0].numel() ** 0.5
                    parameter.copy_(noise if "embed." in name else noise * scale)
                elif name.endswith("weight"):
                    parameter.copy_(1 + 0.3 * noise)
                else:
                    parameter.copy_(0.3 * noise)

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(torch.tensor([list(token_ids)])).logits[0]
        return logits

    def logits_with(self, token_ids: Sequence[int], pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """[tokens, vocab_size] of a prompt with images, in one pass."""
        ids = torch.tensor([list(token_ids)])
        with torch.inference_mode():
            logits: Tensor = self.model(
                ids,
                pixel_values=pixels,
                image_grid_thw=torch.tensor(grids),
                mm_token_type_ids=self._kinds(ids),
            ).logits[0]
        return logits

    def rope_index(self, token_ids: Sequence[int], grids: Sequence[Grid]) -> tuple[Tensor, int]:
        """Positions [3, tokens] and what is added to the place of a token behind them."""
        ids = torch.tensor([list(token_ids)])
        stated = torch.tensor(grids) if grids else None
        positions, delta = self.model.model.get_rope_index(ids, self._kinds(ids), image_grid_thw=stated)
        return positions[:, 0], int(delta)

    def features(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """What the vision tower makes of images: its result, and beside it what each layer of DeepStack takes."""
        with torch.inference_mode():
            found = self.model.model.visual(pixels, torch.tensor(grids))
        return torch.cat([found.pooler_output, *found.deepstack_features], dim=1)

    def generate(self, token_ids: Sequence[int], count: int) -> list[int]:
        """The greedy continuation, end-of-text tokens ignored."""
        ids = list(token_ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(token_ids) :]

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        self.model.save_pretrained(directory, max_shard_size=_SHARD if kind == "sharded" else "1GB")
        shards = len(list(directory.glob("*.safetensors")))
        assert (shards > 1) == (kind == "sharded"), f"{shards} files for a {kind} checkpoint"
        return directory

    def _kinds(self, ids: Tensor) -> Tensor:
        return (ids == self.raw["image_token_id"]).int()


def reference_config(raw: Raw) -> Any:
    """Transformers' configuration; it writes into the objects it is given, so it gets its own."""
    return transformers.Qwen3VLConfig.from_dict(deepcopy(dict(raw)))


def shapes(raw: Raw) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors checkpoint of this configuration; a tied head is not stored."""
    with torch.device("meta"):
        model = transformers.Qwen3VLForConditionalGeneration(reference_config(raw))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
