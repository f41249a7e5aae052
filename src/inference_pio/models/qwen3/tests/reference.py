"""Transformers' qwen3 with random weights, and its checkpoint in each format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from torch import Tensor

from inference_pio.conformance.case import CheckpointKind, Raw

_SHARD = "60KB"


class TransformersQwen3:
    """Implements `ReferenceModel`. Every parameter is random, norms and biases too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.model = transformers.Qwen3ForCausalLM(reference_config(raw)).float().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 2:
                    parameter.copy_(noise if "embed" in name else noise * 1.5 / parameter.shape[1] ** 0.5)
                else:
                    parameter.copy_(1 + 0.3 * noise if "norm" in name else noise)

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
        if kind == "gguf":
            return write_gguf(directory / "model.gguf", self.raw, self.model)
        self.model.save_pretrained(directory, max_shard_size=_SHARD if kind == "sharded" else "1GB")
        shards = len(list(directory.glob("*.safetensors")))
        assert (shards > 1) == (kind == "sharded"), f"{shards} files for a {kind} checkpoint"
        return directory


def reference_config(raw: Raw) -> Any:
    """Transformers' configuration; it writes into the objects it is given, so it gets its own."""
    return transformers.Qwen3Config.from_dict(deepcopy(dict(raw)))


def shapes(raw: Raw) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors checkpoint of this configuration; a tied head is not stored."""
    with torch.device("meta"):
        model = transformers.Qwen3ForCausalLM(reference_config(raw))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def gguf_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """Checkpoint name -> name in a GGUF file, out of the table that llama.cpp's converter uses."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
    renamed = {name: table.get_name(name, try_suffixes=(".weight", ".bias")) for name in names}
    return {name: stored for name, stored in renamed.items() if stored is not None}


def write_gguf(path: Path, raw: Raw, model: Any) -> Path:
    """What llama.cpp's converter makes of a qwen3: renamed, rows in order, yarn as three numbers."""
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.rope_parameters["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
        writer.add_rope_scaling_orig_ctx_len(config.rope_parameters["original_max_position_embeddings"])
    parameters = dict(model.named_parameters())  # a tied head is not named a second time
    assert ("lm_head.weight" not in parameters) == raw["tie_word_embeddings"]
    names = gguf_names(parameters, config.num_hidden_layers)
    assert set(names) == set(parameters), "llama.cpp has no name for a parameter"
    for name, parameter in parameters.items():
        writer.add_tensor(names[name], np.ascontiguousarray(parameter.detach().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
