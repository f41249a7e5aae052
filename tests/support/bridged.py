"""Tiny models of architectures without a plugin of ours, and Transformers' own answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from inference_pio.conformance.case import CheckpointKind, Raw

_SIZES: dict[str, Any] = {
    "vocab_size": 272,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
_ROUTED = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
# model_type -> what makes it worth a test.
_DIFFERENCES: dict[str, dict[str, Any]] = {
    "olmo2": {},  # norms behind the blocks, norms of whole queries and keys
    "mistral": {"sliding_window": 24},
    "olmo3": {"sliding_window": 24, "num_hidden_layers": 4},  # windows in three layers of four
    "phi3": {"partial_rotary_factor": 0.5},  # merged projections
    "granite": {
        "embedding_multiplier": 12.0,
        "logits_scaling": 8.0,
        "attention_multiplier": 0.1,
        "residual_multiplier": 0.5,
    },
    "cohere": {"logit_scale": 0.25, "use_qk_norm": True},  # parallel blocks, interleaved rotation, tied
    "gpt_neox": {"rotary_pct": 0.25, "num_key_value_heads": 4},
    "gpt2": {},  # learned positions, transposed matrices, sizes by other names
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "smollm3": {},  # layers without positions
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**_MIXTURE, "shared_expert_intermediate_size": 48},
    "deepseek_v3": {**_LATENT, **_ROUTED},  # values narrower than keys, a stored buffer, interleaved rotation
    "gemma2": {"attn_logit_softcapping": None, "head_dim": 16, "sliding_window": 24},
}


def tiny(model_type: str, **changes: Any) -> Raw:
    """config.json of a tiny model."""
    architecture = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    named = {"architectures": [architecture], "model_type": model_type}
    return {**named, **_SIZES, **_DIFFERENCES.get(model_type, {}), **changes}


TINY = {model_type: tiny(model_type) for model_type in _DIFFERENCES}


class TransformersModel:
    """Implements `ReferenceModel`. Every parameter is random, norms and biases too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(deepcopy(dict(raw)))
        model_class = getattr(transformers, raw["architectures"][0])
        torch.manual_seed(0)
        self._model = model_class._from_config(config, attn_implementation="eager").float().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self._model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim >= 2:
                    parameter.copy_(noise * 1.2 / parameter.shape[-1] ** 0.5)
                else:
                    parameter.add_(0.3 * noise)
            for name, buffer in self._model.named_buffers():
                if "correction_bias" in name:
                    buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self._model(torch.tensor([list(token_ids)]), use_cache=False).logits[0]
        return logits

    def generate(self, token_ids: Sequence[int], count: int) -> list[int]:
        """The greedy continuation by `count` tokens, by Transformers' own `generate`."""
        made = self._model.generate(
            torch.tensor([list(token_ids)]),
            attention_mask=torch.ones(1, len(token_ids), dtype=torch.int64),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
        ids: list[int] = made[0, len(token_ids) :].tolist()
        return ids

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        self._model.save_pretrained(directory, max_shard_size="60KB" if kind == "sharded" else "1GB")
        return directory


def written(raw: Raw, directory: Path) -> Path:
    """A checkpoint of `raw` with random weights."""
    TransformersModel(raw).save(directory, "safetensors")
    (directory / "config.json").write_text(json.dumps(raw))
    return directory
