"""The one table of configuration fields that nothing reads yet, with what will serve each. It may only shrink."""

from __future__ import annotations

from collections.abc import Mapping

_FRAMEWORK = "the optimisation framework"
_CUDA = "the CUDA kernel dispatch table"

DEFERRED_FIELDS: Mapping[str, str] = {
    "device_map": "placing layers on several devices, with tensor paging",
    "low_cpu_mem_usage": "tensor paging; loading streams tensor by tensor in any case",
    "gradient_checkpointing": "bounded activations (there are no gradients in inference)",
    "use_cache": "recomputation instead of a KV cache, for models whose cache does not fit",
    "use_multi_query_attention": f"the receipt for reading each KV head once, in {_FRAMEWORK}",
    "use_grouped_query_attention": f"the receipt for reading each KV head once per group, in {_FRAMEWORK}",
    "use_tensor_parallelism": "ranks as processes; shard plans are tested with simulated ranks",
    "use_cuda_kernels": _CUDA,
    "cuda_kernel_gelu_enabled": _CUDA,
    "cuda_kernel_matmul_enabled": _CUDA,
    "cuda_kernel_softmax_enabled": _CUDA,
    "cuda_kernel_attention_enabled": _CUDA,
    "cuda_kernel_mlp_enabled": _CUDA,
    "cuda_kernel_layernorm_enabled": _CUDA,
    "torch_compile_mode": "the compiled step on a GPU",
    "torch_compile_fullgraph": "the compiled step on a GPU",
    "torch_compile_dynamic": "the compiled step on a GPU",
    "enable_cudnn_benchmark": "vision towers, the first convolutions on a GPU",
    "enable_memory_efficient_attention": f"bounded activations, in {_FRAMEWORK}",
}
