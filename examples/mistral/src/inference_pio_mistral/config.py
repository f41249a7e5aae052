"""What a mistral checkpoint states, read strictly from config.json."""

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
    "use_cache": "generation always uses the cache",
    "eos_token_id": "the tokenizer's files say it",
    "bos_token_id": "the tokenizer's files say it",
    "unk_token_id": "the tokenizer's files say it",
    "auto_map": "code out of checkpoints is never run",
}


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions as they were published (Su et al. 2021); Mistral scales nothing."""

    theta: float = 1_000_000.0


@dataclass
class MistralConfig(BaseModelConfig):
    """A mistral. The defaults are Mistral-7B-Instruct-v0.3, the plugin's default model.

    sliding_window  how many tokens a token sees, itself included; None: all before it
    """

    model_path: str = "mistralai/Mistral-7B-Instruct-v0.3"
    torch_dtype: Any = "auto"
    hidden_size: int = 4096
    num_attention_heads: int = 32
    num_hidden_layers: int = 32
    max_position_embeddings: int = 32768
    intermediate_size: int = 14336
    vocab_size: int = 32768
    num_key_value_heads: int = 8
    head_dim: int = 128
    rms_norm_eps: float = 1e-5
    rope: RopeConfig = field(default_factory=RopeConfig)
    sliding_window: int | None = None
    tie_word_embeddings: bool = False

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: str) -> MistralConfig:
        """From a parsed config.json."""
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
            return _checked(
                read,
                cls(
                    hidden_size=hidden_size,
                    num_attention_heads=heads,
                    num_hidden_layers=read.integer("num_hidden_layers", high=10_000),
                    max_position_embeddings=read.integer("max_position_embeddings"),
                    intermediate_size=read.integer("intermediate_size"),
                    vocab_size=read.integer("vocab_size"),
                    num_key_value_heads=read.integer("num_key_value_heads"),
                    head_dim=read.integer("head_dim", default=hidden_size // heads),
                    rms_norm_eps=read.number("rms_norm_eps"),
                    rope=_rope(read),
                    sliding_window=_window(read, raw),
                    tie_word_embeddings=read.flag("tie_word_embeddings", default=False),
                    pad_token_id=_pad_token_id(read),
                ),
            )


def _checked(read: ConfigReader, config: MistralConfig) -> MistralConfig:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        read.refuse(f"{heads} attention heads cannot share {kv_heads} KV heads", where="num_key_value_heads")
    if config.head_dim % 2:
        read.refuse(f"{config.head_dim} is odd; rotary positions turn pairs", where="head_dim")
    return config


def _window(read: ConfigReader, raw: Mapping[str, Any]) -> int | None:
    """null says that there is no window; no word about it means the window of Mistral 7B v0.1."""
    if "sliding_window" in raw and read.optional("sliding_window") is None:
        return None
    return read.integer("sliding_window", default=4096)


def _rope(read: ConfigReader) -> RopeConfig:
    """Both spellings: `rope_parameters` (transformers 5) and `rope_theta` (before)."""
    stated = read.mapping("rope_parameters") or read.mapping("rope_scaling")
    read.optional("rope_scaling")
    theta = read.number("rope_theta", default=10_000.0)
    ignored = {"type": "the old name of rope_type"}
    with ConfigReader(stated, path=f"{read.path}: rope", ignored=ignored) as rope:
        theta = rope.number("rope_theta", default=theta)
        kind = rope.text("rope_type", default=stated.get("type", "default"))
        if kind != "default":
            rope.refuse(f"{kind!r} is not supported; mistral has default", where="rope_type")
        return RopeConfig(theta=theta)


def _pad_token_id(read: ConfigReader) -> int | None:
    value = read.optional("pad_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
