"""Facts about the standard's techniques, in the words that all plugins share; a plugin says what is its own.

What follows from the standard's configuration fields alone is read from them here, whatever the model.
"""

from __future__ import annotations

from inference_pio.config import BaseModelConfig
from inference_pio.plugin.facts import ShardPlan, TechniqueFact

_RECEIPT = "within the receipt or by name"


def flash_attention(config: BaseModelConfig, use: str = "prefill in every layer") -> TechniqueFact:
    """For models that attend to earlier tokens; `use` says where."""
    return TechniqueFact(
        "FlashAttention 2 (tiled online softmax)",
        "attention",
        "active" if config.use_flash_attention_2 else "dormant",
        exact=True,
        reason=use if config.use_flash_attention_2 else "use_flash_attention_2 is off",
    )


def paged_attention(config: BaseModelConfig, use: str = "decode reads blocks in place") -> TechniqueFact:
    """For models that keep tokens in blocks; `use` says what is read there."""
    return TechniqueFact(
        "paged attention",
        "attention",
        "active" if config.use_paged_attention else "dormant",
        exact=True,
        reason=use if config.use_paged_attention else "use_paged_attention is off",
    )


def sparse_attention(how: str) -> TechniqueFact:
    """For models that were trained to attend to everything: `how` they can leave something out."""
    return _approximate(
        "sparse attention", f"{how}; reading what fits the query best approximates it, {_RECEIPT}"
    )


def no_sparse_attention(why: str) -> TechniqueFact:
    """For models whose cache holds nothing that could be chosen."""
    return TechniqueFact("sparse attention", "attention", "not applicable", exact=False, reason=why)


def dense_throughout(plugin: str) -> TechniqueFact:
    """`sparse_attention` of a model with nothing particular to say of it."""
    return sparse_attention(f"{plugin} was trained with dense attention in every layer")


def windows_for_all(why: str) -> TechniqueFact:
    """For models whose layers see the whole text: `why` none of them has a window."""
    return _approximate(
        "sliding-window attention",
        f"{why}; reading the beginning and a window approximates it, {_RECEIPT}",
    )


def no_sliding_window(why: str) -> TechniqueFact:
    """For models in which no window can be put."""
    return TechniqueFact("sliding-window attention", "attention", "not applicable", exact=False, reason=why)


def no_window_anywhere(plugin: str) -> TechniqueFact:
    """`windows_for_all` of an architecture that does not know windows."""
    return windows_for_all(f"no layer of a {plugin} has a window")


def _approximate(name: str, reason: str) -> TechniqueFact:
    return TechniqueFact(name, "attention", "dormant", exact=False, reason=reason)


def bias_removal(config: BaseModelConfig, biased: str) -> TechniqueFact:
    """`biased` are the linear maps that add a bias; empty where none of this model does."""
    on = config.use_bias_removal_optimization
    return TechniqueFact(
        "bias removal",
        "hardware",
        "not applicable" if not biased else "active" if on else "dormant",
        exact=True,
        reason="no linear map of this model adds a bias"
        if not biased
        else f"biases of {biased} that are zero throughout are dropped"
        if on
        else "use_bias_removal_optimization is off",
    )


def shared_heads(num_heads: int, num_kv_heads: int) -> TechniqueFact:
    """Multi-query and grouped-query attention."""
    shared = num_heads > num_kv_heads
    return TechniqueFact(
        "multi-query / grouped-query attention",
        "attention",
        "active" if shared else "not applicable",
        exact=True,
        reason=f"{num_heads} heads share {num_kv_heads} KV heads, read once per group"
        if shared
        else "every head has keys and values of its own",
    )


def int8_cache(what: str = "half of bfloat16's bytes") -> TechniqueFact:
    """For models that keep keys and values in blocks; `what` comes of rounding them."""
    return TechniqueFact(
        "KV-cache compression",
        "memory",
        "dormant",
        exact=False,
        reason=f"the engine's option kv_cache_dtype int8 or int4 switches it on, on a CPU: {what}",
    )


def packed_weights(
    config: BaseModelConfig,
    how: str = "on a CPU quantised weights stay in their blocks and meet activations of 8 bits",
) -> TechniqueFact:
    """`how` says which weights, where some stay dense."""
    kept = config.torch_dtype == "auto"
    return TechniqueFact(
        "weight quantisation",
        "hardware",
        "active" if kept else "dormant",
        exact=False,
        reason=how if kept else "a dtype was named: weights are dense",
    )


def prefix_caching(config: BaseModelConfig, what: str = "full blocks are shared") -> TechniqueFact:
    """For models whose memory of a prompt can be cut at a block's border."""
    return TechniqueFact(
        "prefix caching",
        "memory",
        "active" if config.use_prefix_caching else "dormant",
        exact=True,
        reason=f"{what}; {config.prefix_cache_max_size / 2**20:.0f} MiB of unused ones are kept"
        if config.use_prefix_caching
        else "use_prefix_caching is off",
    )


def fused_layer_norm(
    config: BaseModelConfig, what: str = "residual addition and RMSNorm in one pass"
) -> TechniqueFact:
    return TechniqueFact(
        "fused layer norm",
        "hardware",
        "active" if config.use_fused_layer_norm else "dormant",
        exact=True,
        reason=what if config.use_fused_layer_norm else "use_fused_layer_norm is off",
    )


def needed_rows(worth: str) -> TechniqueFact:
    """For models that go on with `layers.keep_rows` behind their last attention; `worth` says what that saves."""
    return TechniqueFact("needed rows", "hardware", "active", exact=True, reason=f"in prefill: {worth}")


def fused_operations(what: str) -> TechniqueFact:
    """Which steps of a model's are one operation of `inference_pio.ops`: that much is written into the model. Which
    kernels an operation runs in is decided for all models alike, by the technique device_kernels.
    """
    return TechniqueFact("fused operations", "hardware", "active", exact=True, reason=what)


def tensor_parallelism(plan: ShardPlan, what: str = "this model") -> TechniqueFact:
    sizes = ", ".join(map(str, plan.legal_sizes))
    return TechniqueFact(
        "tensor parallelism",
        "hardware",
        "dormant",
        exact=True,
        reason=f"one rank runs; {what} can be divided over {sizes}",
    )


def of_a_decoder(config: BaseModelConfig, kv_heads: int, plan: ShardPlan) -> tuple[TechniqueFact, ...]:
    """All of the above that follow from a configuration, for a model that attends in every layer over blocks."""
    return (
        flash_attention(config),
        paged_attention(config),
        shared_heads(config.num_attention_heads, kv_heads),
        int8_cache(),
        packed_weights(config),
        prefix_caching(config),
        fused_layer_norm(config),
        tensor_parallelism(plan),
    )
