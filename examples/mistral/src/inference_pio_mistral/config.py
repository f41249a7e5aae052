"""What a mistral checkpoint states, read strictly from config.json or from GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inference_pio.config import BaseModelConfig, ConfigReader

_IGNORED = {
    "architectures": "chose this plugin",
    "model_type": "chose this plugin",
    "transformers_version": "about the writer",
    "_name_or_path": "about the writer",
    "torch_dtype": "the weights say it themselves",
    "dtype": "the weights say it themselves",
    "initializer_range": "training",
    "attention_dropout": "training",
    "pretraining_tp": "training; slices of one matrix product, the same result",
    "use_cache": "generation always uses the cache",
    "is_llama_config": "no meaning",
    "rope_interleaved": "checked by the weights' layout; transformers does not read it either",
    "transformers.js_config": "about another runtime",
    "eos_token_id": "the tokenizer's files say it",
    "bos_token_id": "the tokenizer's files say it",
    "unk_token_id": "the tokenizer's files say it",
    "auto_map": "code out of checkpoints is never run",
}
_GGUF_IGNORED_PREFIXES = ("general.", "tokenizer.", "GGUF.", "quantize.", "gguf.")


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
class MistralConfig(BaseModelConfig):
    """A mistral. The defaults are SmolLM2-135M-Instruct, the plugin's default model."""

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
    def read(cls, raw: Mapping[str, Any], path: str) -> MistralConfig:
        """From a parsed config.json, or from GGUF metadata with "gguf.tensor_names" added."""
        return cls._from_gguf(raw, path) if "general.architecture" in raw else cls._from_hf(raw, path)

    @classmethod
    def _from_hf(cls, raw: Mapping[str, Any], path: str) -> MistralConfig:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            if read.text("hidden_act", default="silu") != "silu":
                read.refuse(f"{raw['hidden_act']!r} is not the silu of a mistral", where="hidden_act")
            if "quantization_config" in read:
                read.refuse(
                    "quantised safetensors are not supported",
                    where="quantization_config",
                    hint="use a GGUF file",
                )
            heads = read.integer("num_attention_heads")
            hidden_size = read.integer("hidden_size")
            max_positions = read.integer("max_position_embeddings", default=2048)
            return _checked(
                read,
                cls(
                    hidden_size=hidden_size,
                    num_attention_heads=heads,
                    num_hidden_layers=read.integer("num_hidden_layers", high=10_000),
                    max_position_embeddings=max_positions,
                    intermediate_size=read.integer("intermediate_size"),
                    vocab_size=read.integer("vocab_size"),
                    num_key_value_heads=read.integer("num_key_value_heads", default=heads),
                    head_dim=read.integer("head_dim", default=hidden_size // heads),
                    rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
                    rope=_rope(read, max_positions),
                    attention_bias=read.flag("attention_bias", default=False),
                    mlp_bias=read.flag("mlp_bias", default=False),
                    tie_word_embeddings=read.flag("tie_word_embeddings", default=False),
                    pad_token_id=_pad_token_id(read),
                ),
            )

    @classmethod
    def _from_gguf(cls, raw: Mapping[str, Any], path: str) -> MistralConfig:
        names = raw["gguf.tensor_names"]
        facts = {
            key.removeprefix("mistral."): value
            for key, value in raw.items()
            if not key.startswith(_GGUF_IGNORED_PREFIXES)
        }
        with ConfigReader(facts, path=path, ignored={}) as read:
            heads = read.integer("attention.head_count")
            hidden_size = read.integer("embedding_length")
            head_dim = read.integer("attention.key_length", default=hidden_size // heads)
            for key in ("rope.dimension_count", "attention.value_length"):
                if read.integer(key, default=head_dim) != head_dim:
                    read.refuse(f"{facts[key]} is not the head size {head_dim}", where=f"mistral.{key}")
            if read.text("rope.scaling.type", default="none") != "none":
                read.refuse(
                    f"{facts['rope.scaling.type']!r} is not supported", where="mistral.rope.scaling.type"
                )
            return _checked(
                read,
                cls(
                    hidden_size=hidden_size,
                    num_attention_heads=heads,
                    num_hidden_layers=read.integer("block_count", high=10_000),
                    max_position_embeddings=read.integer("context_length", high=2**30),
                    intermediate_size=read.integer("feed_forward_length"),
                    vocab_size=read.integer(
                        "vocab_size", default=len(raw.get("tokenizer.ggml.tokens", ())) or None
                    ),
                    num_key_value_heads=read.integer("attention.head_count_kv", default=heads),
                    head_dim=head_dim,
                    rms_norm_eps=read.number("attention.layer_norm_rms_epsilon"),
                    rope=RopeConfig(
                        theta=read.number("rope.freq_base", default=10_000.0),
                        rope_type="factors" if "rope_freqs.weight" in names else "default",
                    ),
                    attention_bias="blk.0.attn_q.bias" in names,
                    mlp_bias="blk.0.ffn_gate.bias" in names,
                    tie_word_embeddings="output.weight" not in names,
                    pad_token_id=raw.get("tokenizer.ggml.padding_token_id"),
                ),
            )


def _checked(read: ConfigReader, config: MistralConfig) -> MistralConfig:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        read.refuse(f"{heads} attention heads cannot share {kv_heads} KV heads", where="num_key_value_heads")
    if config.head_dim % 2:
        read.refuse(f"{config.head_dim} is odd; rotary positions turn pairs", where="head_dim")
    return config


def _rope(read: ConfigReader, max_positions: int) -> RopeConfig:
    """Both spellings: `rope_parameters` (transformers 5) and `rope_theta` with `rope_scaling` (before)."""
    stated = read.mapping("rope_parameters") or read.mapping("rope_scaling")
    read.optional("rope_scaling")
    theta = read.number("rope_theta", default=10_000.0)
    ignored = {"type": "the old name of rope_type"}
    with ConfigReader(stated, path=f"{read.path}: rope", ignored=ignored) as rope:
        theta = rope.number("rope_theta", default=theta)
        kind = rope.text("rope_type", default=stated.get("type", "default"))
        if kind == "default":
            return RopeConfig(theta=theta)
        if kind != "llama3":
            rope.refuse(f"{kind!r} is not supported; there are default and llama3", where="rope_type")
        return RopeConfig(
            theta=theta,
            rope_type=kind,
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_max_position_embeddings=rope.integer(
                "original_max_position_embeddings", default=max_positions
            ),
        )


def _pad_token_id(read: ConfigReader) -> int | None:
    value = read.optional("pad_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
