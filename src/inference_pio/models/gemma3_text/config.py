"""What a gemma3_text checkpoint states, read strictly from config.json or from GGUF metadata."""

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
from inference_pio.config.rope import rope_kind, rope_reader

FULL, SLIDING = "full_attention", "sliding_attention"
_IGNORED = {
    **IGNORED,
    "_sliding_window_pattern": "written beside layer_types by default, whatever these say; never read",
    "cache_implementation": "how another library stores keys and values",
}
_PATTERN = 6  # every sixth layer attends to everything
_THETA = {FULL: 1_000_000.0, SLIDING: 10_000.0}
# GGUF files do not say what queries are scaled by: as in llama.cpp, the 27B is known by its number of layers.
_LAYERS_OF_27B = 62


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions of one kind of layer; positions count `factor` times less (Chen et al. 2023)."""

    theta: float
    factor: float = 1.0


@dataclass
class Gemma3TextConfig(DecoderConfig):
    """A gemma3_text. The defaults are the catalogue's Gemma-3-270M, the plugin's default model.

    query_pre_attn_scalar  scores are divided by its root (head_dim, but in the 27B)
    layer_types            what each layer attends to: FULL, or SLIDING for the last `sliding_window` positions
    rope_full, rope_sliding  rotary positions of either kind of layer
    """

    model_path: str = "gemma-3-270m"
    torch_dtype: Any = "auto"
    hidden_size: int = 640
    num_attention_heads: int = 4
    num_hidden_layers: int = 18
    max_position_embeddings: int = 32768
    intermediate_size: int = 2048
    vocab_size: int = 262144
    num_key_value_heads: int = 1
    head_dim: int = 256
    rms_norm_eps: float = 1e-6
    query_pre_attn_scalar: float = 256.0
    sliding_window: int = 512
    layer_types: tuple[str, ...] = ((SLIDING,) * 5 + (FULL,)) * 3
    rope_full: RopeConfig = field(default_factory=lambda: RopeConfig(_THETA[FULL]))
    rope_sliding: RopeConfig = field(default_factory=lambda: RopeConfig(_THETA[SLIDING]))
    tie_word_embeddings: bool = True

    def window(self, layer: int) -> int | None:
        """How many positions a query of this layer sees, its own included; None: all before it."""
        return self.sliding_window if self.layer_types[layer] == SLIDING else None

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            _refuse_other_architectures(read)
            tied = read.flag("tie_word_embeddings", default=True)
            stated = {**sizes(read), "tie_word_embeddings": tied}
            rope_full, rope_sliding = _ropes(read)
            return cls(
                **stated,
                max_position_embeddings=read.integer("max_position_embeddings"),
                num_key_value_heads=read.integer("num_key_value_heads"),
                head_dim=read.integer("head_dim", default=256),
                rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
                query_pre_attn_scalar=read.number("query_pre_attn_scalar", default=256.0),
                sliding_window=read.integer("sliding_window"),
                layer_types=_layer_types(read, stated["num_hidden_layers"]),
                rope_full=rope_full,
                rope_sliding=rope_sliding,
            )

    @classmethod
    def from_gguf(cls, raw: Mapping[str, Any], path: str) -> Self:
        with gguf_reader(raw, "gemma3", path) as read:
            stated = gguf_sizes(read, raw, head_dim=256)
            layers = stated["num_hidden_layers"]
            _refuse_softcapping(read, "final_logit_softcapping", "attn_logit_softcapping")
            full, sliding = _gguf_ropes(read)
            pattern = read.integer("attention.sliding_window_pattern", default=_PATTERN)
            of_a_head = stated["hidden_size"] / stated["num_attention_heads"]
            return cls(
                **stated,
                max_position_embeddings=read.integer("context_length", high=2**30),
                query_pre_attn_scalar=of_a_head if layers == _LAYERS_OF_27B else stated["head_dim"],
                sliding_window=read.integer("attention.sliding_window"),
                layer_types=_by_pattern(pattern, layers),
                rope_full=full,
                rope_sliding=sliding,
            )


def _refuse_other_architectures(read: ConfigReader) -> None:
    """What the key's name allows and no published Gemma 3 text model has."""
    refuse_other_forms(read, "gemma3_text", activation="gelu_pytorch_tanh", key="hidden_activation")
    if read.flag("attention_bias", default=False):
        read.refuse("biases of q, k, v and o are not supported", where="attention_bias")
    if read.flag("use_bidirectional_attention", default=False):
        read.refuse(
            "attention to later tokens is that of an embedding model", where="use_bidirectional_attention"
        )
    _refuse_softcapping(read, "final_logit_softcapping", "attn_logit_softcapping")


def _refuse_softcapping(read: ConfigReader, *keys: str) -> None:
    for key in keys:
        if (value := read.optional(key)) is not None:
            read.refuse(
                f"{value!r}: capped logits are not supported", where=key, hint="Gemma 3 is published without"
            )


def _layer_types(read: ConfigReader, layers: int) -> tuple[str, ...]:
    """What is stated layer by layer, or by the distance of full layers, which must agree with it."""
    stated = read.optional("layer_types")
    found = None
    if stated is not None:
        if (
            not isinstance(stated, list)
            or len(stated) != layers
            or not {*map(str, stated)} <= {FULL, SLIDING}
        ):
            read.refuse(f"must be {layers} times {FULL} or {SLIDING}, is {stated!r:.80}", where="layer_types")
        found = tuple(stated)
    by_pattern = _by_pattern(read.integer("sliding_window_pattern", default=_PATTERN), layers)
    if found is not None and "sliding_window_pattern" in read and by_pattern != found:
        read.refuse("contradicts layer_types", where="sliding_window_pattern")
    return found or by_pattern


def _by_pattern(distance: int, layers: int) -> tuple[str, ...]:
    return tuple(SLIDING if (layer + 1) % distance else FULL for layer in range(layers))


def _ropes(read: ConfigReader) -> tuple[RopeConfig, RopeConfig]:
    """Of full and of sliding layers, in both spellings: `rope_parameters` for each kind (transformers 5), or
    `rope_theta` and `rope_scaling` of the full ones and `rope_local_base_freq` of the others (before).
    """
    if "rope_parameters" in read and "rope_scaling" in read:
        read.refuse("rope_parameters say it as well; keep one of the two", where="rope_scaling")
    stated, scaling = read.mapping("rope_parameters"), read.mapping("rope_scaling")
    theta = read.number("rope_theta", default=_THETA[FULL])
    local = read.number("rope_local_base_freq", default=_THETA[SLIDING])
    if kind := stated.get("rope_type"):
        read.refuse(f"rope_type {kind!r} is stated for no kind of layer", where="rope_parameters")
    with ConfigReader(stated, path=f"{read.path}: rope_parameters", ignored={}) as kinds:
        full, sliding = kinds.mapping(FULL), kinds.mapping(SLIDING)
    return _rope(read, {**full, **scaling}, theta), _rope(read, sliding, local)


def _rope(read: ConfigReader, stated: Mapping[str, Any], theta: float) -> RopeConfig:
    with rope_reader(read, stated) as rope:
        theta = rope.number("rope_theta", default=theta)
        if rope_kind(rope, stated, "default", "linear") == "default":
            return RopeConfig(theta)
        return RopeConfig(theta, rope.number("factor"))


def _gguf_ropes(read: ConfigReader) -> tuple[RopeConfig, RopeConfig]:
    theta = read.number("rope.freq_base", default=_THETA[FULL])
    sliding = RopeConfig(read.number("rope.freq_base_swa", default=_THETA[SLIDING]))
    kind = read.text("rope.scaling.type", default="none")
    if kind == "none":
        return RopeConfig(theta), sliding
    if kind != "linear":
        read.refuse(f"{kind!r} is not supported; there are none and linear", where="gemma3.rope.scaling.type")
    return RopeConfig(theta, read.number("rope.scaling.factor")), sliding
