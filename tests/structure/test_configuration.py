"""C15: every field of the configuration is read by something, or listed with what will serve it; never both."""

from __future__ import annotations

import ast
from dataclasses import fields
from typing import Any

from inference_pio.config import BaseModelConfig
from inference_pio.config.deferred import DEFERRED_FIELDS
from inference_pio.optimizations.registry import TECHNIQUES

# The deferred fields when the table was made. Fields leave it; none enters.
FIRST_DEFERRED = frozenset(
    {
        "cuda_kernel_attention_enabled",
        "cuda_kernel_gelu_enabled",
        "cuda_kernel_layernorm_enabled",
        "cuda_kernel_matmul_enabled",
        "cuda_kernel_mlp_enabled",
        "cuda_kernel_softmax_enabled",
        "device_map",
        "enable_cudnn_benchmark",
        "enable_memory_efficient_attention",
        "gradient_checkpointing",
        "kv_cache_compression_method",
        "kv_cache_quantization_bits",
        "low_cpu_mem_usage",
        "torch_compile_dynamic",
        "torch_compile_fullgraph",
        "torch_compile_mode",
        "use_cache",
        "use_cuda_kernels",
        "use_grouped_query_attention",
        "use_kv_cache_compression",
        "use_multi_query_attention",
        "use_tensor_parallelism",
    }
)


def _read(sources: list[Any]) -> set[str]:
    """Attributes that code outside `config/` and outside tests reads, and flags that techniques state by name."""
    flags = {flag for technique in TECHNIQUES.values() for flag in technique.flags}
    return flags | {
        node.attr
        for source in sources
        if not source.name.startswith("inference_pio.config") and ".tests" not in source.name
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_field_is_read_or_deferred(sources: list[Any]) -> None:
    read = _read(sources)
    for field in fields(BaseModelConfig):
        deferred = field.name in DEFERRED_FIELDS
        assert (field.name in read) != deferred, f"{field.name} is " + (
            "deferred, and yet read" if deferred else "read by nothing and not deferred"
        )


def test_the_table_only_shrinks() -> None:
    assert set(DEFERRED_FIELDS) <= FIRST_DEFERRED
    assert set(DEFERRED_FIELDS) <= {field.name for field in fields(BaseModelConfig)}
    assert all(served.strip() for served in DEFERRED_FIELDS.values())
