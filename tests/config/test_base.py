"""The standard's fields with the standard's defaults, and how a caller's options meet a checkpoint's facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference_pio import BaseModelConfig
from inference_pio.errors import ConfigError
from inference_pio.models.llama.config import LlamaConfig

STANDARD = {
    "device": "cpu", "device_map": "auto", "torch_dtype": "float16", "low_cpu_mem_usage": True,
    "gradient_checkpointing": True, "use_cache": True, "temperature": 0.7, "top_p": 0.9, "top_k": 50,
    "repetition_penalty": 1.1, "max_new_tokens": 512, "do_sample": True, "pad_token_id": None,
    "use_flash_attention_2": True, "use_sparse_attention": True, "use_multi_query_attention": True,
    "use_grouped_query_attention": True, "use_paged_attention": True, "use_sliding_window_attention": True,
    "use_fused_layer_norm": True, "use_bias_removal_optimization": True, "use_tensor_parallelism": False,
    "use_kv_cache_compression": True, "kv_cache_compression_method": "combined", "kv_cache_quantization_bits": 8,
    "use_prefix_caching": True, "prefix_cache_max_size": 1024 * 1024 * 256, "use_cuda_kernels": True,
    "cuda_kernel_gelu_enabled": True, "cuda_kernel_matmul_enabled": True, "cuda_kernel_softmax_enabled": True,
    "cuda_kernel_attention_enabled": True, "cuda_kernel_mlp_enabled": True, "cuda_kernel_layernorm_enabled": True,
    "torch_compile_mode": "reduce-overhead", "torch_compile_fullgraph": False, "torch_compile_dynamic": True,
    "enable_cudnn_benchmark": True, "enable_memory_efficient_attention": True,
}  # fmt: skip
ARCHITECTURE = {
    "hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings", "intermediate_size",
    "vocab_size",
}  # fmt: skip


def test_fields_and_defaults_are_the_standards() -> None:
    config = vars(BaseModelConfig())
    assert {name: config[name] for name in STANDARD} == STANDARD
    assert set(config) == set(STANDARD) | ARCHITECTURE | {"model_path", "model_name"}


def test_options_of_the_caller_meet_facts_of_the_checkpoint() -> None:
    stated = LlamaConfig(hidden_size=64, num_attention_heads=4, pad_token_id=7)
    merged = stated.with_options_of(LlamaConfig(model_path="here", temperature=0.1, torch_dtype="float32"))
    assert (merged.hidden_size, merged.num_attention_heads) == (64, 4)
    assert (merged.model_path, merged.temperature, merged.torch_dtype) == ("here", 0.1, "float32")
    assert merged.pad_token_id == 7
    assert stated.with_options_of(LlamaConfig(pad_token_id=3)).pad_token_id == 3


def test_a_contradiction_is_an_error() -> None:
    stated = LlamaConfig(hidden_size=64)
    with pytest.raises(ConfigError, match="hidden_size is 128 in the configuration and 64 in the checkpoint"):
        stated.with_options_of(replace(LlamaConfig(), hidden_size=128))
    assert stated.with_options_of(replace(LlamaConfig(), hidden_size=64)).hidden_size == 64


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("use_paged_attention", "no", "use_paged_attention must be True or False, got 'no'"),
        ("gradient_checkpointing", 1, "gradient_checkpointing must be True or False, got 1"),
        ("kv_cache_quantization_bits", 3, "must be 4, 8 or 16, got 3"),
        ("kv_cache_quantization_bits", "8", "must be 4, 8 or 16, got '8'"),
        ("prefix_cache_max_size", -1, "a whole number of bytes from 0 up, got -1"),
        ("prefix_cache_max_size", float("nan"), "a whole number of bytes from 0 up, got nan"),
    ],
)
def test_options_that_cannot_be_are_told(field: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BaseModelConfig().with_options_of(BaseModelConfig(**{field: value}))  # type: ignore[arg-type]
