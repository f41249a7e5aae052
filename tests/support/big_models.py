"""Models of a size at which their parts are to be seen beside the runtime: random weights, some 40 million of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_pio.conformance.case import CheckpointKind, Raw
from inference_pio.conformance.subject import load_case
from inference_pio.plugin.registry import default_registry
from requantize import requantize

VOCAB = 16_384
_PLAIN: Raw = {"hidden_size": 512, "max_position_embeddings": 4096, "vocab_size": VOCAB}
_SIZES: Raw = {
    **_PLAIN,
    "intermediate_size": 1536,
    "num_attention_heads": 8,
    "num_hidden_layers": 8,
    "num_key_value_heads": 4,
}
_EXPERTS: Raw = {"num_experts": 32, "num_experts_per_tok": 8, "moe_intermediate_size": 256}
SIZES: Mapping[str, Raw] = {
    "llama": _SIZES,
    "qwen2": _SIZES,
    "qwen3": {**_SIZES, "head_dim": 64, "layer_types": ["full_attention"] * 8},
    "qwen3_vl": {
        "text_config": {
            **_SIZES,
            "head_dim": 64,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [12, 10, 10],
                "rope_type": "default",
            },
        },
        "vision_config": {
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_heads": 4,
            "out_hidden_size": 512,
            "patch_size": 16,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1, 2, 3],
        },
    },
    "glm4_moe_lite": {
        **_PLAIN,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "num_hidden_layers": 4,
        "q_lora_rank": 256,
        "kv_lora_rank": 128,
        "qk_nope_head_dim": 48,
        "qk_rope_head_dim": 16,
        "v_head_dim": 64,
        "n_routed_experts": 32,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 256,
    },
    "gemma3_text": {**_SIZES, "head_dim": 128, "num_key_value_heads": 1, "sliding_window": 256},
    "qwen3_moe": {**_SIZES, **_EXPERTS, "num_hidden_layers": 3, "head_dim": 64},
    "qwen3_next": {
        **_PLAIN,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "linear_num_key_heads": 8,
        "linear_num_value_heads": 16,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 256,
    },
}


def _over(raw: Raw, sizes: Raw) -> dict[str, Any]:
    """What `sizes` has in the place of what `raw` has, in objects of objects too; scaling is an object of its own."""
    nested = {
        name: _over(raw[name], sizes[name]) for name in ("text_config", "vision_config") if name in sizes
    }
    return {**raw, **sizes, **nested}


def checkpoint(name: str, folder: Path, blocks: str | None = None) -> Path:
    """A folder with safetensors, or a GGUF file in blocks of one kind; float32 where they are none."""
    case = load_case(default_registry().get(name).manifest)
    raw = _over(case.tiny[case.typical], SIZES[name])
    kind: CheckpointKind = "gguf" if blocks else "safetensors"
    (folder / kind).mkdir()
    path = case.reference(raw).save(folder / kind, kind)
    if blocks:
        return requantize(path, folder / f"{blocks}.gguf", lambda _: blocks)
    (path / "config.json").write_text(json.dumps(raw))
    return path
