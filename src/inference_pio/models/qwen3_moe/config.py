"""What a qwen3_moe checkpoint states, read strictly from config.json or from GGUF metadata."""

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
    "router_aux_loss_coef": "training: the weight of a loss",
    "output_router_logits": "training: whether that loss is computed",
    "use_cache": "generation always uses the cache",
    "sliding_window": "use_sliding_window must be false, and then no layer has a window",
    "max_window_layers": "use_sliding_window must be false, and then no layer has a window",
    "eos_token_id": "the tokenizer's files say it",
    "bos_token_id": "the tokenizer's files say it",
    "auto_map": "code out of checkpoints is never run",
}
# Settings of relatives of this architecture: the value that means this one, and what another would mean.
_FIXED = {
    "attention_bias": (False, "q, k, v and the output of attention with a bias are not supported"),
    "qkv_bias": (False, "q, k and v with a bias are those of a qwen2_moe"),
    "use_qk_norm": (True, "queries and keys without a norm are those of a qwen2_moe"),
    "use_sliding_window": (False, "attention within a window is not supported for this architecture"),
}
_GGUF_NOT_OURS = ("general.", "tokenizer.", "GGUF.", "quantize.", "gguf.")
_SOFTMAX = 1  # of llama.cpp's expert_gating_func


@dataclass(frozen=True)
class RopeConfig:
    """Rotary positions: "default", or "yarn" (Peng et al. 2023), which the model cards recommend for long texts.

    factor                            how many times longer than in training a text may be
    original_max_position_embeddings  positions in training
    attention_factor                  multiplies cosines and sines; None: 0.1 · ln(factor) + 1
    beta_fast, beta_slow              turns over the training length above which a frequency stays as it is, and
                                      below which it is slowed by the whole factor
    """

    theta: float = 10_000_000.0
    rope_type: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int = 262_144
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass
class Qwen3MoeConfig(BaseModelConfig):
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
    rope: RopeConfig = field(default_factory=RopeConfig)
    tie_word_embeddings: bool = False
    num_experts: int = 128
    num_experts_per_tok: int = 8
    moe_intermediate_size: int = 768
    norm_topk_prob: bool = True
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()

    def has_experts(self, layer: int) -> bool:
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: str) -> Qwen3MoeConfig:
        """From a parsed config.json, or from GGUF metadata with "gguf.tensor_names" added."""
        return cls._from_gguf(raw, path) if "general.architecture" in raw else cls._from_hf(raw, path)

    @classmethod
    def _from_hf(cls, raw: Mapping[str, Any], path: str) -> Qwen3MoeConfig:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            _refuse_relatives(read)
            heads, hidden_size = read.integer("num_attention_heads"), read.integer("hidden_size")
            layers = read.integer("num_hidden_layers", high=10_000)
            positions = read.integer("max_position_embeddings")
            rope = _rope(read, positions)
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
                    num_experts=_num_experts(read),
                    num_experts_per_tok=read.integer("num_experts_per_tok"),
                    moe_intermediate_size=read.integer("moe_intermediate_size"),
                    norm_topk_prob=read.flag("norm_topk_prob", default=False),
                    decoder_sparse_step=read.integer("decoder_sparse_step", default=1),
                    mlp_only_layers=_dense_layers(read, layers),
                    pad_token_id=_token_id(read.optional("pad_token_id")),
                ),
            )

    @classmethod
    def _from_gguf(cls, raw: Mapping[str, Any], path: str) -> Qwen3MoeConfig:
        facts = {
            key.removeprefix("qwen3moe."): value
            for key, value in raw.items()
            if not key.startswith(_GGUF_NOT_OURS)
        }
        with ConfigReader(facts, path=path, ignored={}) as read:
            heads, hidden_size = read.integer("attention.head_count"), read.integer("embedding_length")
            head_dim = read.integer("attention.key_length", default=hidden_size // heads)
            _refuse_gguf_relatives(read, head_dim)
            positions = read.integer("context_length", high=2**30)
            rope = _gguf_rope(read, positions)
            tokens = len(raw.get("tokenizer.ggml.tokens", ())) or None
            return _checked(
                read,
                cls(
                    hidden_size=hidden_size,
                    num_attention_heads=heads,
                    num_hidden_layers=read.integer("block_count", high=10_000),
                    max_position_embeddings=_reach(rope, positions),
                    intermediate_size=read.integer("feed_forward_length"),
                    vocab_size=read.integer("vocab_size", default=tokens),
                    num_key_value_heads=read.integer("attention.head_count_kv", default=heads),
                    head_dim=head_dim,
                    rms_norm_eps=read.number("attention.layer_norm_rms_epsilon"),
                    rope=rope,
                    tie_word_embeddings="output.weight" not in raw["gguf.tensor_names"],
                    num_experts=read.integer("expert_count"),
                    num_experts_per_tok=read.integer("expert_used_count"),
                    moe_intermediate_size=read.integer("expert_feed_forward_length"),
                    # llama.cpp's graph of a qwen3moe divides them by their sum, whether the file says so or not.
                    norm_topk_prob=read.flag("expert_weights_norm", default=True),
                    pad_token_id=_token_id(raw.get("tokenizer.ggml.padding_token_id")),
                ),
            )


def _checked(read: ConfigReader, config: Qwen3MoeConfig) -> Qwen3MoeConfig:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        read.refuse(f"{heads} attention heads cannot share {kv_heads} KV heads", where="num_key_value_heads")
    if config.head_dim % 2:
        read.refuse(f"{config.head_dim} is odd; rotary positions turn pairs", where="head_dim")
    if config.num_experts_per_tok > config.num_experts:
        read.refuse(
            f"a token cannot go through {config.num_experts_per_tok} of {config.num_experts} experts",
            where="num_experts_per_tok",
        )
    return config


def _refuse_relatives(read: ConfigReader) -> None:
    """What would make it another architecture, or another form of the weights, than this plugin computes."""
    if read.text("hidden_act", default="silu") != "silu":
        read.refuse(f"{read.optional('hidden_act')!r} is not the silu of a qwen3_moe", where="hidden_act")
    if "quantization_config" in read:
        read.refuse(
            "quantised safetensors are not supported",
            where="quantization_config",
            hint="use the bfloat16 checkpoint, with quantize int8 or int4 if it is too large, or a GGUF file",
        )
    for key, (value, otherwise) in _FIXED.items():
        if read.flag(key, default=value) != value:
            read.refuse(otherwise, where=key)
    if read.integer("shared_expert_intermediate_size", default=0, low=0):
        read.refuse(
            "an expert that every token goes through is that of a qwen2_moe",
            where="shared_expert_intermediate_size",
        )


def _refuse_gguf_relatives(read: ConfigReader, head_dim: int) -> None:
    for key in ("rope.dimension_count", "attention.value_length"):
        if (found := read.integer(key, default=head_dim)) != head_dim:
            read.refuse(f"{found} is not the head size {head_dim}", where=f"qwen3moe.{key}")
    for key in ("expert_shared_feed_forward_length", "expert_shared_count"):
        if read.integer(key, default=0, low=0):
            read.refuse("an expert that every token goes through is not supported", where=f"qwen3moe.{key}")
    if read.integer("expert_gating_func", default=_SOFTMAX) != _SOFTMAX:
        read.refuse("the router of a qwen3_moe is a softmax (1)", where="qwen3moe.expert_gating_func")
    if read.number("expert_weights_scale", default=1.0) != 1.0:
        read.refuse("the experts' weights are not scaled", where="qwen3moe.expert_weights_scale")


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


def _rope(read: ConfigReader, positions: int) -> RopeConfig:
    """Both spellings: `rope_parameters` (transformers 5) and `rope_theta` with `rope_scaling` (before)."""
    if "rope_parameters" in read and "rope_scaling" in read:
        read.refuse("rope_parameters say it as well; keep one of the two", where="rope_scaling")
    stated = {**read.mapping("rope_scaling"), **read.mapping("rope_parameters")}
    theta = read.number("rope_theta", default=10_000.0)
    ignored = {"type": "the old name of rope_type"}
    with ConfigReader(stated, path=f"{read.path}: rope", ignored=ignored) as rope:
        theta = rope.number("rope_theta", default=theta)
        kind = rope.text("rope_type", default=stated.get("type", "default"))
        if kind == "default":
            return RopeConfig(theta, original_max_position_embeddings=positions)
        if kind != "yarn":
            rope.refuse(f"{kind!r} is not supported; there are default and yarn", where="rope_type")
        return RopeConfig(
            theta,
            kind,
            rope.number("factor"),
            rope.integer("original_max_position_embeddings", default=positions),
            rope.number("attention_factor") if "attention_factor" in rope else None,
            rope.number("beta_fast", default=32.0),
            rope.number("beta_slow", default=1.0),
        )


def _gguf_rope(read: ConfigReader, positions: int) -> RopeConfig:
    theta = read.number("rope.freq_base", default=10_000.0)
    kind = read.text("rope.scaling.type", default="none")
    if kind == "none":
        return RopeConfig(theta, original_max_position_embeddings=positions)
    where = "rope.scaling."
    if kind != "yarn":
        read.refuse(f"{kind!r} is not supported; there are none and yarn", where=f"qwen3moe.{where}type")
    trained = read.integer(f"{where}original_context_length", default=positions)
    return RopeConfig(theta, kind, read.number(f"{where}factor"), trained)


def _reach(rope: RopeConfig, positions: int) -> int:
    """Positions that can be used. The model cards' recipe for long texts adds yarn and leaves the stated number, which
    is that of training with room for an answer: 40,960 where yarn reaches 4 · 32,768.
    """
    if rope.rope_type == "default":
        return positions
    return max(positions, int(rope.factor * rope.original_max_position_embeddings))


def _token_id(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
