"""What a llama checkpoint states, read strictly from config.json or from GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from inference_pio.config import ConfigReader
from inference_pio.config.decoder import (
    IGNORED,
    DecoderConfig,
    gguf_reader,
    gguf_sizes,
    refuse_other_forms,
    sizes,
)
from inference_pio.config.rope import rope_kind, rope_reader, stated_rope

_IGNORED = {
    **IGNORED,
    "pretraining_tp": "training; slices of one matrix product, the same result",
    "is_llama_config": "no meaning",
    "transformers.js_config": "about another runtime",
    "unk_token_id": "the tokenizer's files say it",
}


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions: "default", "llama3" scaling by wavelength, or "factors" stored in a GGUF file.

    The llama3 fields are those of Llama 3.1's config.json (`rope_scaling`).
    """

    theta: float = 100_000.0
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass
class LlamaConfig(DecoderConfig):
    """A llama. The defaults are SmolLM2-135M-Instruct, the plugin's default model."""

    model_path: str = "smollm2-135m-instruct"
    torch_dtype: Any = "auto"
    hidden_size: int = 576
    num_attention_heads: int = 9
    num_hidden_layers: int = 30
    max_position_embeddings: int = 8192
    intermediate_size: int = 1536
    vocab_size: int = 49152
    num_key_value_heads: int = 3
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope: RopeConfig = field(default_factory=RopeConfig)
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            refuse_other_forms(read, "llama")
            if read.flag("rope_interleaved", default=False):
                read.refuse(
                    "neighbours of a head that turn together are not supported", where="rope_interleaved"
                )
            stated = sizes(read)
            heads = stated["num_attention_heads"]
            positions = read.integer("max_position_embeddings", default=2048)
            return cls(
                **stated,
                max_position_embeddings=positions,
                num_key_value_heads=read.integer("num_key_value_heads", default=heads),
                head_dim=read.integer("head_dim", default=stated["hidden_size"] // heads),
                rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
                rope=_rope(read, positions),
                attention_bias=read.flag("attention_bias", default=False),
                mlp_bias=read.flag("mlp_bias", default=False),
            )

    @classmethod
    def from_gguf(cls, raw: Mapping[str, Any], path: str) -> Self:
        names = raw["gguf.tensor_names"]
        with gguf_reader(raw, "llama", path) as read:
            if (kind := read.text("rope.scaling.type", default="none")) != "none":
                read.refuse(f"{kind!r} is not supported", where="llama.rope.scaling.type")
            return cls(
                **gguf_sizes(read, raw),
                max_position_embeddings=read.integer("context_length", high=2**30),
                rope=RopeConfig(
                    theta=read.number("rope.freq_base", default=10_000.0),
                    rope_type="factors" if "rope_freqs.weight" in names else "default",
                ),
                attention_bias="blk.0.attn_q.bias" in names,
                mlp_bias="blk.0.ffn_gate.bias" in names,
            )


def _rope(read: ConfigReader, positions: int) -> RopeConfig:
    stated = stated_rope(read)
    theta = read.number("rope_theta", default=10_000.0)
    with rope_reader(read, stated) as rope:
        theta = rope.number("rope_theta", default=theta)
        if (kind := rope_kind(rope, stated, "default", "llama3")) == "default":
            return RopeConfig(theta=theta)
        return RopeConfig(
            theta=theta,
            rope_type=kind,
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_max_position_embeddings=rope.integer(
                "original_max_position_embeddings", default=positions
            ),
        )
