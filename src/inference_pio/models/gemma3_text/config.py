"""What a gemma3_text checkpoint states, read strictly from config.json or from GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inference_pio.config import BaseModelConfig, ConfigReader

FULL, SLIDING = "full_attention", "sliding_attention"
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
    "_sliding_window_pattern": "written beside layer_types by default, whatever these say; never read",
    "cache_implementation": "how another library stores keys and values",
    "eos_token_id": "the tokenizer's files say it",
    "bos_token_id": "the tokenizer's files say it",
    "auto_map": "code out of checkpoints is never run",
}
_GGUF_IGNORED_PREFIXES = ("general.", "tokenizer.", "GGUF.", "quantize.", "gguf.")
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
class Gemma3TextConfig(BaseModelConfig):
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
    def read(cls, raw: Mapping[str, Any], path: str) -> Gemma3TextConfig:
        """From a parsed config.json, or from GGUF metadata with "gguf.tensor_names" added."""
        return cls._from_gguf(raw, path) if "general.architecture" in raw else cls._from_hf(raw, path)

    @classmethod
    def _from_hf(cls, raw: Mapping[str, Any], path: str) -> Gemma3TextConfig:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            _refuse_other_architectures(read)
            layers = read.integer("num_hidden_layers", high=10_000)
            rope_full, rope_sliding = _ropes(read)
            return _checked(
                read,
                cls(
                    hidden_size=read.integer("hidden_size"),
                    num_attention_heads=read.integer("num_attention_heads"),
                    num_hidden_layers=layers,
                    max_position_embeddings=read.integer("max_position_embeddings"),
                    intermediate_size=read.integer("intermediate_size"),
                    vocab_size=read.integer("vocab_size"),
                    num_key_value_heads=read.integer("num_key_value_heads"),
                    head_dim=read.integer("head_dim", default=256),
                    rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
                    query_pre_attn_scalar=read.number("query_pre_attn_scalar", default=256.0),
                    sliding_window=read.integer("sliding_window"),
                    layer_types=_layer_types(read, layers),
                    rope_full=rope_full,
                    rope_sliding=rope_sliding,
                    tie_word_embeddings=read.flag("tie_word_embeddings", default=True),
                    pad_token_id=_pad_token_id(read),
                ),
            )

    @classmethod
    def _from_gguf(cls, raw: Mapping[str, Any], path: str) -> Gemma3TextConfig:
        facts = {
            key.removeprefix("gemma3."): value
            for key, value in raw.items()
            if not key.startswith(_GGUF_IGNORED_PREFIXES)
        }
        with ConfigReader(facts, path=path, ignored={}) as read:
            heads, hidden_size = read.integer("attention.head_count"), read.integer("embedding_length")
            layers = read.integer("block_count", high=10_000)
            head_dim = read.integer("attention.key_length", default=256)
            for key in ("rope.dimension_count", "attention.value_length"):
                if read.integer(key, default=head_dim) != head_dim:
                    read.refuse(f"{facts[key]} is not the head size {head_dim}", where=f"gemma3.{key}")
            _refuse_softcapping(read, "final_logit_softcapping", "attn_logit_softcapping")
            full, sliding = _gguf_ropes(read)
            pattern = read.integer("attention.sliding_window_pattern", default=_PATTERN)
            return _checked(
                read,
                cls(
                    hidden_size=hidden_size,
                    num_attention_heads=heads,
                    num_hidden_layers=layers,
                    max_position_embeddings=read.integer("context_length", high=2**30),
                    intermediate_size=read.integer("feed_forward_length"),
                    vocab_size=read.integer(
                        "vocab_size", default=len(raw.get("tokenizer.ggml.tokens", ())) or None
                    ),
                    num_key_value_heads=read.integer("attention.head_count_kv", default=heads),
                    head_dim=head_dim,
                    rms_norm_eps=read.number("attention.layer_norm_rms_epsilon"),
                    query_pre_attn_scalar=hidden_size / heads if layers == _LAYERS_OF_27B else head_dim,
                    sliding_window=read.integer("attention.sliding_window"),
                    layer_types=_by_pattern(pattern, layers),
                    rope_full=full,
                    rope_sliding=sliding,
                    tie_word_embeddings="output.weight" not in raw["gguf.tensor_names"],
                    pad_token_id=raw.get("tokenizer.ggml.padding_token_id"),
                ),
            )


def _checked(read: ConfigReader, config: Gemma3TextConfig) -> Gemma3TextConfig:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        read.refuse(f"{heads} attention heads cannot share {kv_heads} KV heads", where="num_key_value_heads")
    if config.head_dim % 2:
        read.refuse(f"{config.head_dim} is odd; rotary positions turn pairs", where="head_dim")
    return config


def _refuse_other_architectures(read: ConfigReader) -> None:
    """What the key's name allows and no published Gemma 3 text model has."""
    activation = read.text("hidden_activation", default="gelu_pytorch_tanh")
    if activation != "gelu_pytorch_tanh":
        read.refuse(
            f"{activation!r} is not the gelu_pytorch_tanh of a gemma3_text", where="hidden_activation"
        )
    if "quantization_config" in read:
        read.refuse(
            "quantised safetensors are not supported", where="quantization_config", hint="use a GGUF file"
        )
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
    ignored = {"type": "the old name of rope_type"}
    with ConfigReader(stated, path=f"{read.path}: rope", ignored=ignored) as rope:
        theta = rope.number("rope_theta", default=theta)
        kind = rope.text("rope_type", default=stated.get("type", "default"))
        if kind == "default":
            return RopeConfig(theta)
        if kind != "linear":
            rope.refuse(f"{kind!r} is not supported; there are default and linear", where="rope_type")
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


def _pad_token_id(read: ConfigReader) -> int | None:
    value = read.optional("pad_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
