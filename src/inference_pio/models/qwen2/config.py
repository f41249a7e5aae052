"""What a qwen2 checkpoint states, read strictly from config.json or from GGUF metadata."""

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
class Qwen2Config(DecoderConfig):
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
    def from_hf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            refuse_other_forms(read, "qwen2")
            stated = sizes(read)
            refuse_windows(read, stated["num_hidden_layers"], "Qwen2.5")
            if read.flag("use_mrope", default=False):
                read.refuse("positions in three dimensions are those of a vision model", where="use_mrope")
            return cls(
                **stated,
                **_as_stated(positions_and_rope(read), read.integer("max_position_embeddings")),
                num_key_value_heads=read.integer("num_key_value_heads"),
                head_dim=read.integer(
                    "head_dim", default=stated["hidden_size"] // stated["num_attention_heads"]
                ),
                rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
            )

    @classmethod
    def from_gguf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with gguf_reader(raw, "qwen2", path) as read:
            return cls(
                **gguf_sizes(read, raw),
                **_as_stated(
                    gguf_positions_and_rope(read, "qwen2"), read.integer("context_length", high=2**30)
                ),
            )


def _as_stated(fields: dict[str, Any], positions: int) -> dict[str, Any]:
    """What a checkpoint states is the reach of YaRN already, unless it is no more than the positions of training.

    Qwen2.5's recipe for long texts adds `rope_scaling` and changes nothing else.
    """
    if positions > fields["rope"].original_max_position_embeddings:
        return {**fields, "max_position_embeddings": positions}
    return fields
