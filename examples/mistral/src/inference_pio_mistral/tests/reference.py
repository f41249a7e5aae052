"""Transformers' mistral with random weights, and its checkpoint in each format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class TransformersMistral:
    """Implements `ReferenceModel`. Every parameter is random, norms and biases too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.model = transformers.LlamaForCausalLM(reference_config(raw)).float().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 2:
                    parameter.copy_(noise if "embed" in name else noise * 1.5 / parameter.shape[1] ** 0.5)
                else:
                    parameter.copy_(0.3 * noise + (1.0 if "norm" in name else 0.0))

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
    return transformers.LlamaConfig.from_dict(deepcopy(dict(raw)))


def write_gguf(path: Path, raw: Raw, model: Any) -> Path:
    """What llama.cpp's converter makes of a mistral: renamed, q and k interleaved, llama3 scaling as divisors."""
    config = model.config
    writer = gguf.GGUFWriter(path, "mistral")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    for name, value in _gguf_tensors(raw, model).items():
        writer.add_tensor(name, np.ascontiguousarray(value.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_tensors(raw: Raw, model: Any) -> Mapping[str, Tensor]:
    config, tensors = model.config, {}
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, parameter in model.named_parameters():  # a tied head is not named a second time
        stem, _, kind = name.rpartition(".")
        value = parameter.detach()
        if (count := heads.get(stem.rpartition(".")[2])) is not None:
            value = interleaved(value, count)
        tensors[f"{_gguf_stem(stem)}.{kind}"] = value
    if model.model.rotary_emb.rope_type == "llama3":
        plain = config.rope_parameters["rope_theta"] ** -(
            torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        )
        tensors["rope_freqs.weight"] = plain / model.model.rotary_emb.inv_freq
    assert ("output.weight" in tensors) != bool(raw.get("tie_word_embeddings")), "tied heads are not written"
    return tensors


def _gguf_stem(stem: str) -> str:
    if stem in _GGUF_TOP:
        return _GGUF_TOP[stem]
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_GGUF_PARTS[part]}"


def interleaved(value: Tensor, heads: int) -> Tensor:
    """Rows of each head as llama.cpp's rotary kernel wants them: the halves (a…, b…) become pairs (a, b)…"""
    halves = value.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).flatten(0, 2)
