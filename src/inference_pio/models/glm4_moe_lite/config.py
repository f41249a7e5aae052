"""What a glm4_moe_lite checkpoint states, read strictly from config.json or GGUF metadata.

GGUF files of a GLM-4.7-Flash say that they are a "deepseek2", as those of DeepSeek-V2 and V3 do. What is claimed of
that name is what is computed alike: sigmoid scores with a correction bias, in groups or not, plain rotary positions. So
files of DeepSeek-V3's architecture without YaRN (Moonlight) run as well; DeepSeek-V2 (a softmax router), V3 and Kimi K2
(YaRN), and models without experts are refused, each by the key that says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from inference_pio.config import BaseModelConfig, ConfigReader, set_by_runtime
from inference_pio.config.decoder import IGNORED, gguf_common, gguf_reader, sizes
from inference_pio.config.rope import rope_kind, rope_reader, stated_rope

DENSE, SPARSE = "dense", "sparse"
_IGNORED = {
    **IGNORED,
    "output_router_logits": "training",
    "pretraining_tp": "how the training was divided over devices",
    "ep_size": "how the training was divided over devices",
}
# Keys of related architectures that this one answers in one way only: key -> (the answer, what another would mean).
_FIXED = {
    "hidden_act": ("silu", "the gate of experts and dense layers is silu"),
    "topk_method": ("noaux_tc", "experts are chosen by scores with a correction bias, within groups"),
    "scoring_func": ("sigmoid", "the router's scores are sigmoids"),
    "moe_layer_freq": (1, "every layer behind the dense ones has experts"),
    "partial_rotary_factor": (1.0, "all of a rotary key turns"),
}
_PUBLISHED_LAYERS = 47
_MOST_HEADS = 4096  # a file may claim any number, and each has names of its own in the weight map
GGUF = "deepseek2"  # llama.cpp's name of the architecture
_SOFTMAX, _SIGMOID = 1, 2  # of its expert_gating_func


@dataclass
class Glm4MoeLiteConfig(BaseModelConfig):
    """A glm4_moe_lite. The defaults are GLM-4.7-Flash.

    q_lora_rank           width between a query's two projections; None: there is one
    kv_lora_rank          width of a latent
    qk_nope_head_dim      a head's key as far as it is made from the latent
    qk_rope_head_dim      the rotary key that all heads share
    rope_interleave       neighbours turn together, not halves
    mlp_layer_types       "dense" or "sparse" for each layer
    n_group, topk_group   experts lie in so many groups, and are chosen from the best so many of them
    num_nextn_predict_layers  layers behind the last that predict further tokens
    use_mtp               the model has the first of these and can draft (`specific_optimizations/mtp.py`)
    """

    model_path: str = "zai-org/GLM-4.7-Flash"
    torch_dtype: Any = "auto"
    hidden_size: int = 2048
    num_attention_heads: int = 20
    num_hidden_layers: int = _PUBLISHED_LAYERS
    max_position_embeddings: int = 202752
    intermediate_size: int = 10240
    vocab_size: int = 154880
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    rope_interleave: bool = True
    attention_bias: bool = False
    q_lora_rank: int | None = 768
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 192
    qk_rope_head_dim: int = 64
    v_head_dim: int = 256
    mlp_layer_types: tuple[str, ...] = (DENSE,) + (SPARSE,) * (_PUBLISHED_LAYERS - 1)
    moe_intermediate_size: int = 1536
    n_routed_experts: int = 64
    n_shared_experts: int = 1
    num_experts_per_tok: int = 4
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.8
    num_nextn_predict_layers: int = 1
    use_mtp: bool = set_by_runtime(False)
    tie_word_embeddings: bool = False

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_width(self) -> int:
        """Of what a token leaves in the cache: its latent and its rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: str) -> Glm4MoeLiteConfig:
        """From a parsed config.json, or from GGUF metadata with "gguf.tensor_names" added."""
        return cls._from_gguf(raw, path) if "general.architecture" in raw else cls._from_hf(raw, path)

    @classmethod
    def _from_hf(cls, raw: Mapping[str, Any], path: str) -> Glm4MoeLiteConfig:
        with ConfigReader(raw, path=path, ignored=_IGNORED) as read:
            _refuse_relatives(read, raw)
            stated = sizes(read)
            theta = _rope_theta(read)
            return _checked(
                read,
                cls(
                    **stated,
                    max_position_embeddings=read.integer("max_position_embeddings"),
                    rms_norm_eps=read.number("rms_norm_eps", default=1e-5),
                    rope_theta=theta,
                    rope_interleave=read.flag("rope_interleave", default=True),
                    attention_bias=read.flag("attention_bias", default=False),
                    q_lora_rank=_low_rank(read),
                    kv_lora_rank=read.integer("kv_lora_rank"),
                    qk_nope_head_dim=read.integer("qk_nope_head_dim"),
                    qk_rope_head_dim=read.integer("qk_rope_head_dim"),
                    v_head_dim=read.integer("v_head_dim"),
                    mlp_layer_types=_layer_types(read, stated["num_hidden_layers"]),
                    moe_intermediate_size=read.integer("moe_intermediate_size"),
                    n_routed_experts=read.integer("n_routed_experts"),
                    n_shared_experts=read.integer("n_shared_experts"),
                    num_experts_per_tok=read.integer("num_experts_per_tok"),
                    n_group=read.integer("n_group", default=1),
                    topk_group=read.integer("topk_group", default=1),
                    norm_topk_prob=read.flag("norm_topk_prob", default=True),
                    routed_scaling_factor=read.number("routed_scaling_factor", default=1.8),
                    num_nextn_predict_layers=read.integer(
                        "num_nextn_predict_layers", default=0, low=0, high=100
                    ),
                ),
            )

    @classmethod
    def _from_gguf(cls, raw: Mapping[str, Any], path: str) -> Glm4MoeLiteConfig:
        """What the file does not say is not free in it: neighbours turn together, and no projection has a bias."""
        with gguf_reader(raw, GGUF, path) as read:
            _refuse_gguf_relatives(read, raw["gguf.tensor_names"])
            stated = gguf_common(read, raw)
            predictors = read.integer("nextn_predict_layers", default=0, low=0, high=100)
            layers = stated["num_hidden_layers"] - predictors
            if layers < 1:
                read.refuse(
                    f"{predictors} of {layers + predictors} layers cannot be predictors",
                    where=f"{GGUF}.nextn_predict_layers",
                )
            dense = read.integer("leading_dense_block_count", low=0, default=0)
            config = cls(
                **{**stated, "num_hidden_layers": layers},
                **_gguf_heads(read, stated["num_attention_heads"]),
                max_position_embeddings=read.integer("context_length", high=2**30),
                rope_theta=read.number("rope.freq_base", default=10_000.0),
                q_lora_rank=read.integer("attention.q_lora_rank")
                if "attention.q_lora_rank" in read
                else None,
                mlp_layer_types=_leading(dense, layers),
                moe_intermediate_size=read.integer("expert_feed_forward_length"),
                n_routed_experts=read.integer("expert_count"),
                n_shared_experts=read.integer("expert_shared_count"),
                num_experts_per_tok=read.integer("expert_used_count"),
                n_group=read.integer("expert_group_count", default=1),
                topk_group=read.integer("expert_group_used_count", default=1),
                norm_topk_prob=read.flag("expert_weights_norm", default=False),
                routed_scaling_factor=read.number("expert_weights_scale", default=1.0),
                num_nextn_predict_layers=predictors,
            )
            return _checked(read, config)


def _refuse_gguf_relatives(read: ConfigReader, tensor_names: Collection[str]) -> None:
    """Other models of the same name. Files of GLM-4.7-Flash leave out what the scores are: a correction bias, which
    comes with sigmoids alone, tells them from DeepSeek-V2's, which leave it out too.
    """
    if (kind := read.text("rope.scaling.type", default="none")) != "none":
        read.refuse(
            f"{kind!r} is not supported: positions are not stretched", where=f"{GGUF}.rope.scaling.type"
        )
    biased = any(name.endswith(".exp_probs_b.bias") for name in tensor_names)
    gating = read.integer("expert_gating_func", default=_SIGMOID if biased else _SOFTMAX)
    if gating != _SIGMOID:
        what = "softmax" if gating == _SOFTMAX else "another function"
        read.refuse(
            f"{gating} ({what}) is not supported: the router's scores are sigmoids ({_SIGMOID})",
            where=f"{GGUF}.expert_gating_func",
        )


def _gguf_heads(read: ConfigReader, heads: int) -> dict[str, Any]:
    """Sizes of latents and heads. `key_length` and `value_length` are those of the cache's rows, and a head's have
    names of their own (`…_mla`); in older files they are a head's.
    """
    latent, turning = read.integer("attention.kv_lora_rank"), read.integer("rope.dimension_count")
    row, row_value = read.integer("attention.key_length"), read.integer("attention.value_length")
    key = read.integer("attention.key_length_mla", default=row)
    value = read.integer("attention.value_length_mla", default=row_value)
    kv_heads = read.integer("attention.head_count_kv", default=heads)
    for name, found, possible in (
        ("key_length", row, (latent + turning, key)),
        ("value_length", row_value, (latent, value)),
        ("head_count_kv", kv_heads, (1, heads)),
    ):
        if found not in possible:
            read.refuse(
                f"{found} contradicts the other sizes, by which it is {possible[0]} or {possible[1]}",
                where=f"{GGUF}.attention.{name}",
            )
    if key <= turning:
        read.refuse(
            f"{turning} of a key's {key} entries turn; some must not", where=f"{GGUF}.rope.dimension_count"
        )
    return {
        "kv_lora_rank": latent,
        "qk_nope_head_dim": key - turning,
        "qk_rope_head_dim": turning,
        "v_head_dim": value,
    }


def _refuse_relatives(read: ConfigReader, raw: Mapping[str, Any]) -> None:
    """What DeepSeek's family of configurations could say and this architecture does not do."""
    for key, (answer, meaning) in _FIXED.items():
        value = read.optional(key)
        if value is not None and value != answer:
            read.refuse(f"{value!r} is not supported: {meaning} ({answer!r})", where=key)
    if "quantization_config" in read:
        read.refuse("quantised safetensors are not supported", where="quantization_config")
    heads = raw.get("num_attention_heads")
    for key, stated in (
        ("num_key_value_heads", heads),
        ("head_dim", raw.get("qk_rope_head_dim")),
        ("qk_head_dim", _sum(raw.get("qk_nope_head_dim"), raw.get("qk_rope_head_dim"))),
    ):
        value = read.optional(key)
        if value is not None and value != stated:
            read.refuse(f"{value!r} contradicts the other sizes, by which it is {stated!r}", where=key)


def _sum(left: Any, right: Any) -> int | None:
    return left + right if isinstance(left, int) and isinstance(right, int) else None


def _rope_theta(read: ConfigReader) -> float:
    stated = stated_rope(read)
    theta = read.number("rope_theta", default=10_000.0)
    with rope_reader(read, stated) as rope:
        theta = rope.number("rope_theta", default=theta)
        if (factor := rope.number("partial_rotary_factor", default=1.0)) != 1:
            rope.refuse(
                f"{factor} is not supported: all of a rotary key turns", where="partial_rotary_factor"
            )
        rope_kind(rope, stated, "default")
    return theta


def _low_rank(read: ConfigReader) -> int | None:
    stated = read.optional("q_lora_rank")
    return None if stated is None else read.integer("q_lora_rank")


def _layer_types(read: ConfigReader, layers: int) -> tuple[str, ...]:
    """From either key, or both where they agree; the first layer is dense where neither is there."""
    stated = read.optional("mlp_layer_types")
    first = read.integer("first_k_dense_replace", low=0, default=1)
    counted = _leading(first, layers)
    if stated is None:
        return counted
    if not isinstance(stated, list) or len(stated) != layers or not set(stated) <= {DENSE, SPARSE}:
        read.refuse(f"must be {layers} times {DENSE} or {SPARSE}, is {stated!r}", where="mlp_layer_types")
    if "first_k_dense_replace" in read and tuple(stated) != counted:
        read.refuse(f"{first} contradicts mlp_layer_types", where="first_k_dense_replace")
    return tuple(stated)


def _leading(dense: int, layers: int) -> tuple[str, ...]:
    return tuple(DENSE if layer < dense else SPARSE for layer in range(layers))


def _checked(read: ConfigReader, config: Glm4MoeLiteConfig) -> Glm4MoeLiteConfig:
    for key in ("qk_rope_head_dim", "kv_lora_rank"):
        if getattr(config, key) % 2:
            read.refuse(
                f"{getattr(config, key)} is odd; rotary positions and attention take pairs", where=key
            )
    if config.num_attention_heads > _MOST_HEADS:
        read.refuse(
            f"{config.num_attention_heads} heads are more than {_MOST_HEADS}", where="num_attention_heads"
        )
    experts, groups = config.n_routed_experts, config.n_group
    if experts % groups or (groups > 1 and experts // groups < 2):
        read.refuse(f"{experts} experts cannot lie in {groups} groups of at least two", where="n_group")
    if config.topk_group > groups:
        read.refuse(f"{config.topk_group} of {groups} groups cannot be chosen", where="topk_group")
    reachable = config.topk_group * (experts // groups)
    if config.num_experts_per_tok > reachable:
        read.refuse(
            f"{config.num_experts_per_tok} experts cannot be chosen from the {reachable} of {config.topk_group} groups",
            where="num_experts_per_tok",
        )
    return config
