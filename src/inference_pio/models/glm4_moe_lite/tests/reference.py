"""Transformers' glm4_moe_lite with random weights, and its checkpoint."""

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


class TransformersGlm:
    """Implements `ReferenceModel`. Every parameter is random, norms and biases too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        self.model = transformers.Glm4MoeLiteForCausalLM(reference_config(raw)).float().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                noise = torch.randn(tensor.shape, generator=generator)
                if tensor.ndim > 1:
                    tensor.copy_(noise if "embed" in name else noise * 1.5 / tensor.shape[-1] ** 0.5)
                elif "norm" in name:
                    tensor.copy_(1 + 0.3 * noise)
                else:  # the router's is as large as scores differ
                    tensor.copy_(0.3 * noise if "e_score" in name else noise)

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
        assert kind != "gguf", "no GGUF form of this architecture is read"
        self.model.save_pretrained(directory, max_shard_size=_SHARD if kind == "sharded" else "1GB")
        shards = len(list(directory.glob("*.safetensors")))
        assert (shards > 1) == (kind == "sharded"), f"{shards} files for a {kind} checkpoint"
        return directory


def reference_config(raw: Raw) -> Any:
    """Transformers' configuration; it writes into the objects it is given, so it gets its own.

    It does not know `first_k_dense_replace`: which layers are dense is told it in its own words.
    """
    own = deepcopy(dict(raw))
    if (dense := own.pop("first_k_dense_replace", None)) is not None:
        own["mlp_layer_types"] = ["dense" if n < dense else "sparse" for n in range(own["num_hidden_layers"])]
    return transformers.Glm4MoeLiteConfig.from_dict(own)
