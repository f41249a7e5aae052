"""Transformers' qwen3_next with random weights, and its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from inference_pio.conformance.case import CheckpointKind, Raw

_SHARD = "60KB"


class TransformersQwen3Next:
    """Implements `ReferenceModel`. Every parameter is random and large enough to matter; decays are neither 0 nor 1."""

    def __init__(self, raw: Raw) -> None:
        self.model = transformers.Qwen3NextForCausalLM(reference_config(raw)).float().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(_scaled(name, noise))

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(torch.tensor([list(token_ids)]), use_cache=False).logits[0]
        return logits

    def generate(self, token_ids: Sequence[int], count: int) -> list[int]:
        """The greedy continuation, end-of-text tokens ignored."""
        ids = list(token_ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(token_ids) :]

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        assert kind != "gguf", "the case says that GGUF holds none of these"
        self.model.save_pretrained(directory, max_shard_size=_SHARD if kind == "sharded" else "1GB")
        shards = len(list(directory.glob("*.safetensors")))
        assert (shards > 1) == (kind == "sharded"), f"{shards} files for a {kind} checkpoint"
        return directory


def _scaled(name: str, noise: Tensor) -> Tensor:
    if name.endswith(("A_log", "dt_bias")):
        return noise - 1.5  # a token keeps between half and nearly all of the state
    if "linear_attn.norm" in name:
        return 1 + 0.3 * noise
    if "norm" in name or name.endswith("bias"):
        return 0.3 * noise
    if "embed" in name:
        return noise
    return noise * 1.5 / noise.shape[-1] ** 0.5


def reference_config(raw: Raw) -> Any:
    """Transformers' configuration; it writes into the objects it is given, so it gets its own."""
    return transformers.Qwen3NextConfig.from_dict(deepcopy(dict(raw)))


def checkpoint_shapes(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint of this configuration: Transformers' class, its experts one by one, and mtp.

    Transformers does not load `mtp.*`. Its names and shapes are those of vLLM's and LightLLM's loaders: one attention
    layer with a mixture, a norm in front of each half of `fc`, and one behind.
    """
    config = reference_config(raw)
    with torch.device("meta"):
        model = transformers.Qwen3NextForCausalLM(config)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        shapes.update(_one_by_one(name, tuple(parameter.shape)))
    attention = config.layer_types.index("full_attention")
    layer = f"model.layers.{attention}."
    copied = {name: shape for name, shape in shapes.items() if name.startswith(layer)}
    shapes |= {f"mtp.layers.0.{name.removeprefix(layer)}": shape for name, shape in copied.items()}
    hidden = config.hidden_size
    shapes["mtp.fc.weight"] = (hidden, 2 * hidden)
    for norm in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
        shapes[f"mtp.{norm}.weight"] = (hidden,)
    return shapes


def _one_by_one(name: str, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    """Checkpoints have a tensor per expert and projection; Transformers stacks them when it loads."""
    place, _, leaf = name.rpartition(".")
    if not place.endswith(".experts"):
        return {name: shape}
    experts, rows, columns = shape
    parts = {"gate_up_proj": (("gate_proj", rows // 2), ("up_proj", rows // 2))}.get(leaf, ((leaf, rows),))
    return {
        f"{place}.{expert}.{part}.weight": (height, columns)
        for expert in range(experts)
        for part, height in parts
    }
