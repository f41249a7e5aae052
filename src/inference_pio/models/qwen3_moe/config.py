"""What a qwen3_moe checkpoint states, read strictly from config.json or from GGUF metadata."""

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
    refuse_gguf_routers,
    refuse_other_forms,
    sizes,
)
from inference_pio.config.rope import RopeConfig, gguf_positions_and_rope, positions_and_rope
from inference_pio.errors import ModelFileError

_IGNORED = {
    **IGNORED,
    "router_aux_loss_coef": "training: the weight of a loss",
    "output_router_logits": "training: whether that loss is computed",
    **IGNORED_WINDOWS,
}
# Settings of relatives of this architecture: the value that means this one, and what another would mean.
_FIXED = {
    "attention_bias": (False, "q, k, v and the output of attention with a bias are not supported"),
    "qkv_bias": (False, "q, k and v with a bias are those of a qwen2_moe"),
    "use_qk_norm": (True, "queries and keys without a norm are those of a qwen2_moe"),
    "use_sliding_window": (False, "attention within a window is not supported for this architecture"),
}


@dataclass
class Qwen3MoeConfig(DecoderConfig):
    """A qwen3_moe. The defaults are Qwen3-Coder-30B-A3B-Instruct.

    intermediate_size      features of the feed-forward block of a layer without experts
    moe_intermediate_size  features of one expert
    norm_topk_prob         whether the weights of a token's experts are divided by their sum
    decoder_sparse_step    every so many layers one has experts, the last of them
    mlp_only_layers        layers that have none although it would be their turn
    """

    model_path: str = "Qwen/Qwen3-Coder-30B-A3B-Instruct"
    torch_dtype: Any = "auto"
    hidden_size: int = 2048
    num_attention_heads: int = 32
    num_hidden_layers: int = 48
    max_position_embeddings: int = 262_144
    intermediate_size: int = 5472
    vocab_size: int = 151_936
    num_key_value_heads: int = 4
    head_dim: int = 128
    rms_norm_eps: float = 1e-6
    rope: RopeConfig = field(default_factory=partial(RopeConfig, theta=10_000_000.0))
    tie_word_embeddings: bool = False
    num_experts: int = 128
    num_experts_per_tok: int = 8
    moe_intermediate_size: int = 768
    norm_topk_prob: bool = True
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()

    def has_experts(self, layer: int) -> bool:
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    def check(self, path: str) -> None:
        super().check(path)
        if self.num_experts_per_tok > self.num_experts:
            raise ModelFileError(
                path,
                f"a token cannot go through {self.num_experts_per_tok} of {self.num_experts} experts",
                where="num_experts_per_tok",
            )

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            _refuse_relatives(read)
            stated = sizes(read)
            return cls(
                **stated,
                **positions_and_rope(read),
                num_key_value_heads=read.integer("num_key_value_heads"),
                head_dim=read.integer(
                    "head_dim", default=stated["hidden_size"] // stated["num_attention_heads"]
                ),
                rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
                num_experts=_num_experts(read),
                num_experts_per_tok=read.integer("num_experts_per_tok"),
                moe_intermediate_size=read.integer("moe_intermediate_size"),
                norm_topk_prob=read.flag("norm_topk_prob", default=False),
                decoder_sparse_step=read.integer("decoder_sparse_step", default=1),
                mlp_only_layers=_dense_layers(read, stated["num_hidden_layers"]),
            )

    @classmethod
    def from_gguf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with gguf_reader(raw, "qwen3moe", path) as read:
            _refuse_gguf_relatives(read)
            return cls(
                **gguf_sizes(read, raw),
                **gguf_positions_and_rope(read, "qwen3moe"),
                num_experts=read.integer("expert_count"),
                num_experts_per_tok=read.integer("expert_used_count"),
                moe_intermediate_size=read.integer("expert_feed_forward_length"),
                # llama.cpp's graph of a qwen3moe divides them by their sum, whether the file says so or not.
                norm_topk_prob=read.flag("expert_weights_norm", default=True),
            )


def _refuse_relatives(read: ConfigReader) -> None:
    """What would make it another architecture, or another form of the weights, than this plugin computes."""
    hint = "use the bfloat16 checkpoint, with quantize int8 or int4 if it is too large, or a GGUF file"
    refuse_other_forms(read, "qwen3_moe", hint=hint)
    for key, (value, otherwise) in _FIXED.items():
        if read.flag(key, default=value) != value:
            read.refuse(otherwise, where=key)
    if read.integer("shared_expert_intermediate_size", default=0, low=0):
        read.refuse(
            "an expert that every token goes through is that of a qwen2_moe",
            where="shared_expert_intermediate_size",
        )


def _refuse_gguf_relatives(read: ConfigReader) -> None:
    for key in ("expert_shared_feed_forward_length", "expert_shared_count"):
        if read.integer(key, default=0, low=0):
            read.refuse("an expert that every token goes through is not supported", where=f"qwen3moe.{key}")
    refuse_gguf_routers(read, "qwen3moe")


def _num_experts(read: ConfigReader) -> int:
    """Transformers 5 writes `num_local_experts` where earlier ones wrote `num_experts`."""
    if "num_local_experts" not in read:
        return read.integer("num_experts")
    count = read.integer("num_local_experts")
    if read.integer("num_experts", default=count) != count:
        read.refuse(f"num_experts is not {count}; keep one of the two", where="num_local_experts")
    return count


def _dense_layers(read: ConfigReader, layers: int) -> tuple[int, ...]:
    stated = read.optional("mlp_only_layers")
    listed = [] if stated is None else stated
    right = isinstance(listed, list) and all(
        isinstance(layer, int) and not isinstance(layer, bool) and 0 <= layer < layers for layer in listed
    )
    if not right:
        read.refuse(
            f"must be a list of layers from 0 to {layers - 1}, is {stated!r}", where="mlp_only_layers"
        )
    return tuple(listed)
