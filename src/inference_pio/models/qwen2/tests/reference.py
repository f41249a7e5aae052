"""Transformers' qwen2 with random weights, and its checkpoint in each format."""

from __future__ import annotations

from collections.abc import Sequence
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
_GGUF_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GGUF_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class TransformersQwen2:
    """Implements `ReferenceModel`. Every parameter is random, norms and biases too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.model = transformers.Qwen2ForCausalLM(reference_config(raw)).float().eval()
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
    return transformers.Qwen2Config.from_dict(deepcopy(dict(raw)))


def write_gguf(path: Path, raw: Raw, model: Any) -> Path:
    """What llama.cpp's converter makes of a qwen2: renamed, rows in order, yarn as three numbers."""
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if "head_dim" in raw:
        writer.add_key_length(raw["head_dim"])
        writer.add_value_length(raw["head_dim"])
    if config.rope_parameters["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
        writer.add_rope_scaling_orig_ctx_len(config.rope_parameters["original_max_position_embeddings"])
    tied = True
    for name, parameter in model.named_parameters():  # a tied head is not named a second time
        stem, _, kind = name.rpartition(".")
        tied &= stem != "lm_head"
        writer.add_tensor(f"{_gguf_stem(stem)}.{kind}", np.ascontiguousarray(parameter.detach().numpy()))
    assert tied == raw["tie_word_embeddings"], (
        "a head is written where it is tied, or missing where it is not"
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_stem(stem: str) -> str:
    if stem in _GGUF_TOP:
        return _GGUF_TOP[stem]
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_GGUF_PARTS[part]}"
