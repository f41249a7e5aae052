"""What a qwen3_next checkpoint states, read strictly from config.json or from GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from inference_pio.config import ConfigReader, set_by_runtime
from inference_pio.config.decoder import (
    IGNORED,
    DecoderConfig,
    gguf_reader,
    gguf_sizes,
    refuse_gguf_routers,
    sizes,
)
from inference_pio.config.rope import rope_kind, rope_reader, stated_rope
from inference_pio.errors import ModelFileError

ATTENTION, DELTA_NET = "full_attention", "linear_attention"
_INTERVAL = 4  # of attention layers, where config.json names neither layers nor an interval
_IGNORED = {
    **IGNORED,
    "output_router_logits": "training",
    "router_aux_loss_coef": "training",
}


@dataclass
class Qwen3NextConfig(DecoderConfig):
    """A qwen3_next. The defaults are Qwen3-Coder-Next, the plugin's default model.

    layer_types       of each layer "linear_attention" (gated DeltaNet) or "full_attention"
    dense_layers      numbers of the layers whose feed-forward block is one SwiGLU instead of a mixture
    rotary_dim        of a head's dimensions the first ones, which turn with the position
    use_mtp           the model has the checkpoint's layer that predicts further tokens, and can draft
    num_experts       0: no mixture anywhere, and the fields of experts mean nothing
    """

    model_path: str = "Qwen/Qwen3-Coder-Next"
    torch_dtype: Any = "auto"
    hidden_size: int = 2048
    num_attention_heads: int = 16
    num_hidden_layers: int = 48
    max_position_embeddings: int = 262144
    intermediate_size: int = 5120
    vocab_size: int = 151936
    num_key_value_heads: int = 2
    head_dim: int = 256
    attention_bias: bool = False
    rms_norm_eps: float = 1e-6
    rope_theta: float = 5_000_000.0
    rotary_dim: int = 64
    layer_types: tuple[str, ...] = (*(DELTA_NET,) * 3, ATTENTION) * 12
    dense_layers: tuple[int, ...] = ()
    linear_conv_kernel_dim: int = 4
    linear_key_head_dim: int = 128
    linear_value_head_dim: int = 128
    linear_num_key_heads: int = 16
    linear_num_value_heads: int = 32
    num_experts: int = 512
    num_experts_per_tok: int = 10
    norm_topk_prob: bool = True
    moe_intermediate_size: int = 512
    shared_expert_intermediate_size: int = 512
    tie_word_embeddings: bool = False
    use_mtp: bool = set_by_runtime(False)

    @property
    def key_width(self) -> int:
        """Channels of all key heads of a DeltaNet layer; its queries have as many."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_width(self) -> int:
        """Channels of all value heads of a DeltaNet layer."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def keeps_state(self) -> bool:
        return DELTA_NET in self.layer_types

    @property
    def has_experts(self) -> bool:
        """Whether any layer of the model has a mixture; that which drafts has none if the first has none."""
        return len(self.dense_layers) < self.num_hidden_layers

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            _refuse_others(read)
            stated = sizes(read)
            layers = stated["num_hidden_layers"]
            head_dim = read.integer("head_dim", default=256)
            theta, rotary_dim = _rope(read, head_dim)
            fields = {
                **stated,
                "head_dim": head_dim,
                "rope_theta": theta,
                "rotary_dim": rotary_dim,
                "layer_types": _layer_types(read, layers),
                **_experts(read, layers),
                **_delta_net(read),
            }
            return cls(
                max_position_embeddings=read.integer("max_position_embeddings"),
                num_key_value_heads=read.integer("num_key_value_heads"),
                attention_bias=read.flag("attention_bias", default=False),
                rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
                **fields,
            )

    @classmethod
    def from_gguf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with gguf_reader(raw, "qwen3next", path) as read:
            refuse_gguf_routers(read, "qwen3next")
            if (kind := read.text("rope.scaling.type", default="none")) != "none":
                read.refuse(f"{kind!r} is not supported", where="qwen3next.rope.scaling.type")
            stated = gguf_sizes(read, raw, part_turns=True)
            interval = read.integer("full_attention_interval", default=_INTERVAL)
            return cls(
                **stated,
                **_gguf_delta_net(read),
                max_position_embeddings=read.integer("context_length", high=2**30),
                rope_theta=read.number("rope.freq_base", default=10_000.0),
                rotary_dim=_gguf_rotary_dim(read, stated["head_dim"]),
                layer_types=_by_interval(stated["num_hidden_layers"], interval),
                num_experts=read.integer("expert_count"),
                num_experts_per_tok=read.integer("expert_used_count"),
                # llama.cpp's graph divides them by their sum, whether the file says so or not.
                norm_topk_prob=read.flag("expert_weights_norm", default=True),
                moe_intermediate_size=read.integer("expert_feed_forward_length"),
                shared_expert_intermediate_size=read.integer("expert_shared_feed_forward_length"),
            )

    def check(self, path: str) -> None:
        super().check(path)
        if self.num_experts and self.num_experts_per_tok > self.num_experts:
            raise ModelFileError(
                path,
                f"{self.num_experts_per_tok} of {self.num_experts} experts cannot be chosen",
                where="num_experts_per_tok",
            )


def _refuse_others(read: ConfigReader) -> None:
    """Near relatives of the architecture, and storage that is not read here."""
    if (activation := read.text("hidden_act", default="silu")) != "silu":
        read.refuse(f"{activation!r} is not the silu of a qwen3_next", where="hidden_act")
    if read.flag("use_sliding_window", default=False):
        read.refuse("attention layers of a qwen3_next see everything", where="use_sliding_window")
    if "quantization_config" in read:
        read.refuse(
            "quantised safetensors are not supported",
            where="quantization_config",
            hint="use the bfloat16 checkpoint",
        )


def _layer_types(read: ConfigReader, layers: int) -> tuple[str, ...]:
    """What each layer is; an interval, where one is stated too, must say the same."""
    interval = read.integer("full_attention_interval", default=_INTERVAL)
    by_interval = list(_by_interval(layers, interval))
    stated = read.optional("layer_types")
    if stated is None:
        return tuple(by_interval)
    if not isinstance(stated, list) or len(stated) != layers:
        read.refuse(f"must name a kind for each of {layers} layers, is {stated!r:.80}", where="layer_types")
    if unknown := sorted({str(kind) for kind in stated} - {ATTENTION, DELTA_NET}):
        read.refuse(f"{', '.join(unknown)}: there are {DELTA_NET} and {ATTENTION}", where="layer_types")
    if "full_attention_interval" in read and stated != by_interval:
        read.refuse(f"{interval} contradicts layer_types", where="full_attention_interval")
    return tuple(stated)


def _by_interval(layers: int, interval: int) -> tuple[str, ...]:
    return tuple(DELTA_NET if (layer + 1) % interval else ATTENTION for layer in range(layers))


def _experts(read: ConfigReader, layers: int) -> dict[str, Any]:
    """Fields of the mixtures, and which layers have one: every `decoder_sparse_step`-th, unless listed as dense."""
    step = read.integer("decoder_sparse_step", default=1)
    listed = read.optional("mlp_only_layers") or []
    if not isinstance(listed, list) or not all(
        isinstance(layer, int) and not isinstance(layer, bool) and 0 <= layer < layers for layer in listed
    ):
        read.refuse(f"must list layers from 0 to {layers - 1}, is {listed!r:.80}", where="mlp_only_layers")
    experts = read.integer("num_experts", low=0)
    chosen = read.integer("num_experts_per_tok")
    return {
        "dense_layers": tuple(
            layer for layer in range(layers) if not experts or (layer + 1) % step or layer in listed
        ),
        "num_experts": experts,
        "num_experts_per_tok": chosen,
        "norm_topk_prob": read.flag("norm_topk_prob", default=True),
        "moe_intermediate_size": read.integer("moe_intermediate_size"),
        "shared_expert_intermediate_size": read.integer("shared_expert_intermediate_size"),
    }


def _delta_net(read: ConfigReader) -> dict[str, int]:
    names = (
        "linear_conv_kernel_dim",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "linear_num_key_heads",
        "linear_num_value_heads",
    )
    numbers = {name: read.integer(name, low=2 if name == "linear_conv_kernel_dim" else 1) for name in names}
    keys, values = numbers["linear_num_key_heads"], numbers["linear_num_value_heads"]
    if values % keys:
        read.refuse(f"{values} value heads cannot share {keys} key heads", where="linear_num_value_heads")
    return numbers


def _gguf_delta_net(read: ConfigReader) -> dict[str, Any]:
    keys, values = read.integer("ssm.group_count"), read.integer("ssm.time_step_rank")
    width = read.integer("ssm.inner_size")
    if values % keys:
        read.refuse(
            f"{values} value heads cannot share {keys} key heads", where="qwen3next.ssm.time_step_rank"
        )
    if width % values:
        read.refuse(f"{width} channels are not {values} equal heads", where="qwen3next.ssm.inner_size")
    return {
        "linear_conv_kernel_dim": read.integer("ssm.conv_kernel", low=2),
        "linear_key_head_dim": read.integer("ssm.state_size"),
        "linear_value_head_dim": width // values,
        "linear_num_key_heads": keys,
        "linear_num_value_heads": values,
    }


def _gguf_rotary_dim(read: ConfigReader, head_dim: int) -> int:
    width = read.integer("rope.dimension_count", low=2)
    if width % 2 or width > head_dim:
        read.refuse(f"{width} of {head_dim} cannot turn in pairs", where="qwen3next.rope.dimension_count")
    return width


def _rope(read: ConfigReader, head_dim: int) -> tuple[float, int]:
    """(theta, rotary_dim). Both spellings: `rope_parameters` (transformers 5), or keys of their own (before)."""
    stated = stated_rope(read)
    theta = read.number("rope_theta", default=10_000.0)
    share = read.number("partial_rotary_factor", default=0.25)
    with rope_reader(read, stated) as rope:
        rope_kind(rope, stated, "default")
        theta = rope.number("rope_theta", default=theta)
        share = rope.number("partial_rotary_factor", default=share)
    if share > 1:
        read.refuse(f"{share} is more than a whole head", where="partial_rotary_factor")
    width = int(head_dim * share)
    if width < 2 or width % 2:
        read.refuse(
            f"{share} of {head_dim} dimensions are {width}; positions turn pairs",
            where="partial_rotary_factor",
        )
    return theta, width
