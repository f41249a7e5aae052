"""What a qwen2 checkpoint states, read strictly from config.json or from GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from inference_pio.config import BaseModelConfig, ConfigReader
from inference_pio.config.rope import RopeConfig, read_gguf_rope, read_rope

_IGNORED = {
    "architectures": "chose this plugin",
    "model_type": "chose this plugin",
    "transformers_version": "about the writer",
    "_name_or_path": "about the writer",
    "torch_dtype": "the weights say it themselves",
    "dtype": "the weights say it themselves",
    "initializer_range": "training",
    "attention_dropout": "training",
    "use_cache": "generation always uses the cache",
    "sliding_window": "use_sliding_window must be false, and then no layer has a window",
    "max_window_layers": "use_sliding_window must be false, and then no layer has a window",
    "eos_token_id": "the tokenizer's files say it",
    "bos_token_id": "the tokenizer's files say it",
    "auto_map": "code out of checkpoints is never run",
}
_GGUF_IGNORED_PREFIXES = ("general.", "tokenizer.", "GGUF.", "quantize.", "gguf.")


@dataclass
class Qwen2Config(BaseModelConfig):
    """A qwen2. The defaults are the catalogue's Qwen2.5-Coder-1.5B-Instruct, the plugin's default model."""

    model_path: str = "qwen2.5-coder-1.5b-instruct"
    torch_dtype: Any = "auto"
    hidden_size: int = 1536
    num_attention_heads: int = 12
    num_hidden_layers: int = 28
    max_position_embeddings: int = 32768
    intermediate_size: int = 8960
    vocab_size: int = 151936
    num_key_value_heads: int = 2
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope: RopeConfig = field(default_factory=partial(RopeConfig, theta=1_000_000.0))
    # The model was trained with a tied head; the catalogue's file stores the head again, in more bits.
    tie_word_embeddings: bool = False

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: str) -> Qwen2Config:
        """From a parsed config.json, or from GGUF metadata with "gguf.tensor_names" added."""
        return cls._from_gguf(raw, path) if "general.architecture" in raw else cls._from_hf(raw, path)

    @classmethod
    def _from_hf(cls, raw: Mapping[str, Any], path: str) -> Qwen2Config:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            if read.text("hidden_act", default="silu") != "silu":
                read.refuse(f"{raw['hidden_act']!r} is not the silu of a qwen2", where="hidden_act")
            if "quantization_config" in read:
                read.refuse(
                    "quantised safetensors are not supported",
                    where="quantization_config",
                    hint="use a GGUF file",
                )
            heads = read.integer("num_attention_heads")
            hidden_size = read.integer("hidden_size")
            layers = read.integer("num_hidden_layers", high=10_000)
            _refuse_windows(read, layers)
            positions = read.integer("max_position_embeddings")
            rope = read_rope(read, positions)
            return _checked(
                read,
                cls(
                    hidden_size=hidden_size,
                    num_attention_heads=heads,
                    num_hidden_layers=layers,
                    max_position_embeddings=_reach(rope, positions),
                    intermediate_size=read.integer("intermediate_size"),
                    vocab_size=read.integer("vocab_size"),
                    num_key_value_heads=read.integer("num_key_value_heads"),
                    head_dim=read.integer("head_dim", default=hidden_size // heads),
                    rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
                    rope=rope,
                    tie_word_embeddings=read.flag("tie_word_embeddings", default=False),
                    pad_token_id=_pad_token_id(read),
                ),
            )

    @classmethod
    def _from_gguf(cls, raw: Mapping[str, Any], path: str) -> Qwen2Config:
        facts = {
            key.removeprefix("qwen2."): value
            for key, value in raw.items()
            if not key.startswith(_GGUF_IGNORED_PREFIXES)
        }
        with ConfigReader(facts, path=path, ignored={}) as read:
            heads = read.integer("attention.head_count")
            hidden_size = read.integer("embedding_length")
            head_dim = read.integer("attention.key_length", default=hidden_size // heads)
            for key in ("rope.dimension_count", "attention.value_length"):
                if read.integer(key, default=head_dim) != head_dim:
                    read.refuse(f"{facts[key]} is not the head size {head_dim}", where=f"qwen2.{key}")
            positions = read.integer("context_length", high=2**30)
            rope = read_gguf_rope(read, positions, "qwen2")
            return _checked(
                read,
                cls(
                    hidden_size=hidden_size,
                    num_attention_heads=heads,
                    num_hidden_layers=read.integer("block_count", high=10_000),
                    max_position_embeddings=_reach(rope, positions),
                    intermediate_size=read.integer("feed_forward_length"),
                    vocab_size=read.integer(
                        "vocab_size", default=len(raw.get("tokenizer.ggml.tokens", ())) or None
                    ),
                    num_key_value_heads=read.integer("attention.head_count_kv", default=heads),
                    head_dim=head_dim,
                    rms_norm_eps=read.number("attention.layer_norm_rms_epsilon"),
                    rope=rope,
                    tie_word_embeddings="output.weight" not in raw["gguf.tensor_names"],
                    pad_token_id=raw.get("tokenizer.ggml.padding_token_id"),
                ),
            )


def _checked(read: ConfigReader, config: Qwen2Config) -> Qwen2Config:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        read.refuse(f"{heads} attention heads cannot share {kv_heads} KV heads", where="num_key_value_heads")
    if config.head_dim % 2:
        read.refuse(f"{config.head_dim} is odd; rotary positions turn pairs", where="head_dim")
    return config


def _refuse_windows(read: ConfigReader, layers: int) -> None:
    """Every layer must attend to everything, whichever key says so; `use_mrope` belongs to the vision models."""
    if read.flag("use_sliding_window", default=False):
        read.refuse(
            "attention within a window is not supported for this architecture",
            where="use_sliding_window",
            hint="Qwen2.5 models are published with false",
        )
    kinds = read.optional("layer_types")
    if kinds is not None and kinds != ["full_attention"] * layers:
        read.refuse(f"must be {layers} times full_attention, is {kinds!r}", where="layer_types")
    if read.flag("use_mrope", default=False):
        read.refuse("positions in three dimensions are those of a vision model", where="use_mrope")


def _reach(rope: RopeConfig, positions: int) -> int:
    """Positions that can be used: those stated, unless the stated ones are those of training and yarn adds to them.

    Qwen2.5's recipe for long texts adds `rope_scaling` and changes nothing else.
    """
    trained = rope.original_max_position_embeddings
    if rope.rope_type == "default" or positions > trained:
        return positions
    return int(rope.factor * trained)


def _pad_token_id(read: ConfigReader) -> int | None:
    value = read.optional("pad_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
