"""Transformers' mistral with random weights, and its checkpoint."""

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


class TransformersMistral:
    """Implements `ReferenceModel`. Every parameter is random, norms too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        self.model = transformers.MistralForCausalLM(reference_config(raw)).float().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 2:
                    parameter.copy_(noise if "embed" in name else noise * 1.5 / parameter.shape[1] ** 0.5)
                else:
                    parameter.copy_(1.0 + 0.3 * noise)

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(torch.tensor([list(token_ids)])).logits[0]
        return logits

    def generate(self, token_ids: Sequence[int], count: int) -> list[int]:
        """The greedy continuation, end-of-text tokens ignored."""
        ids = list(token_ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(token_ids) :]

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        assert kind != "gguf", "GGUF files of mistral are llamas"
        self.model.save_pretrained(directory, max_shard_size=_SHARD if kind == "sharded" else "1GB")
        shards = len(list(directory.glob("*.safetensors")))
        assert (shards > 1) == (kind == "sharded"), f"{shards} files for a {kind} checkpoint"
        return directory


def reference_config(raw: Raw) -> Any:
    """Transformers' configuration; it writes into the objects it is given, so it gets its own."""
    return transformers.MistralConfig.from_dict(deepcopy(dict(raw)))
