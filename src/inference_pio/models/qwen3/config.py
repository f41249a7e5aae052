"""What a qwen3 checkpoint states, read strictly from config.json or from GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from inference_pio.config import ConfigReader
from inference_pio.config.decoder import (
    IGNORED,
    IGNORED_WINDOWS,
    DecoderConfig,
    gguf_reader,
    gguf_sizes,
    refuse_other_forms,
    refuse_windows,
    sizes,
)
from inference_pio.config.rope import RopeConfig, gguf_positions_and_rope, positions_and_rope

_IGNORED = {**IGNORED, **IGNORED_WINDOWS}


@dataclass
class Qwen3Config(DecoderConfig):
    """A qwen3. The defaults are Qwen3-0.6B, the plugin's default model.

    head_dim is a number of its own: in most sizes the heads together are wider than hidden_size.
    """

    model_path: str = "Qwen/Qwen3-0.6B"
    torch_dtype: Any = "auto"
    hidden_size: int = 1024
    num_attention_heads: int = 16
    num_hidden_layers: int = 28
    max_position_embeddings: int = 40960
    intermediate_size: int = 3072
    vocab_size: int = 151936
    num_key_value_heads: int = 8
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope: RopeConfig = field(default_factory=partial(RopeConfig, theta=1_000_000.0))
    attention_bias: bool = False
    tie_word_embeddings: bool = True

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            refuse_other_forms(read, "qwen3")
            stated = sizes(read)
            refuse_windows(read, stated["num_hidden_layers"], "Qwen3")
            return cls(
                **stated,
                **positions_and_rope(read),
                num_key_value_heads=read.integer("num_key_value_heads"),
                head_dim=read.integer("head_dim"),
                rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
                attention_bias=read.flag("attention_bias", default=False),
            )

    @classmethod
    def from_gguf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with gguf_reader(raw, "qwen3", path) as read:
            return cls(
                **gguf_sizes(read, raw, head_dim=read.integer("attention.key_length")),
                **gguf_positions_and_rope(read, "qwen3"),
                attention_bias="blk.0.attn_q.bias" in raw["gguf.tensor_names"],
            )
