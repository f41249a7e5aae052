"""Facts about the standard's techniques that follow from its configuration fields alone, whatever the model.

A plugin states them in `techniques`, beside the facts that are its own.
"""

from __future__ import annotations

from inference_pio.config import BaseModelConfig
from inference_pio.plugin.facts import ShardPlan, TechniqueFact


def flash_attention(config: BaseModelConfig) -> TechniqueFact:
    """For models that attend to all earlier tokens in every layer."""
    return TechniqueFact(
        "FlashAttention 2 (tiled online softmax)",
        "attention",
        "active" if config.use_flash_attention_2 else "dormant",
        exact=True,
        reason="prefill in every layer" if config.use_flash_attention_2 else "use_flash_attention_2 is off",
    )


def paged_attention(config: BaseModelConfig) -> TechniqueFact:
    return TechniqueFact(
        "paged attention",
        "attention",
        "active" if config.use_paged_attention else "dormant",
        exact=True,
        reason="decode reads blocks in place" if config.use_paged_attention else "use_paged_attention is off",
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


def int8_cache() -> TechniqueFact:
    """For models that keep keys and values in blocks."""
    return TechniqueFact(
        "KV-cache compression",
        "memory",
        "dormant",
        exact=False,
        reason="the engine's option kv_cache_dtype int8 switches it on, on a CPU: half of bfloat16's bytes",
    )


def packed_weights(config: BaseModelConfig) -> TechniqueFact:
    kept = config.torch_dtype == "auto"
    return TechniqueFact(
        "weight quantisation",
        "hardware",
        "active" if kept else "dormant",
        exact=False,
        reason="on a CPU quantised weights stay in their blocks and meet activations of 8 bits"
        if kept
        else "a dtype was named: weights are dense",
    )


def prefix_caching(config: BaseModelConfig) -> TechniqueFact:
    """For models whose memory of a prompt can be cut at a block's border."""
    return TechniqueFact(
        "prefix caching",
        "memory",
        "active" if config.use_prefix_caching else "dormant",
        exact=True,
        reason=f"full blocks are shared; {config.prefix_cache_max_size / 2**20:.0f} MiB of unused ones are kept"
        if config.use_prefix_caching
        else "use_prefix_caching is off",
    )


def fused_layer_norm(config: BaseModelConfig) -> TechniqueFact:
    return TechniqueFact(
        "fused layer norm",
        "hardware",
        "active" if config.use_fused_layer_norm else "dormant",
        exact=True,
        reason="residual addition and RMSNorm in one pass"
        if config.use_fused_layer_norm
        else "use_fused_layer_norm is off",
    )


def tensor_parallelism(plan: ShardPlan) -> TechniqueFact:
    sizes = ", ".join(map(str, plan.legal_sizes))
    return TechniqueFact(
        "tensor parallelism",
        "hardware",
        "dormant",
        exact=True,
        reason=f"one rank runs; this model can be divided over {sizes}",
    )
