"""The standard's thresholds, templates and profiles."""

from __future__ import annotations

import pytest

from inference_pio import DynamicConfigManager
from inference_pio.models.llama.config import LlamaConfig


@pytest.fixture
def manager() -> DynamicConfigManager:
    manager = DynamicConfigManager()
    manager.register_config_template("llama", LlamaConfig)
    return manager


@pytest.mark.parametrize(
    ("gpu_memory_gb", "dtype", "checkpointing"),
    [
        (0, "float16", True),
        (7.9, "float16", True),
        (8, "auto", True),
        (23.9, "auto", True),
        (24, "bfloat16", False),
    ],
)
def test_thresholds(
    manager: DynamicConfigManager, gpu_memory_gb: float, dtype: str, checkpointing: bool
) -> None:
    config = manager.get_optimal_config("llama", {"gpu_memory_gb": gpu_memory_gb})
    assert isinstance(config, LlamaConfig)
    assert (config.torch_dtype, config.gradient_checkpointing) == (dtype, checkpointing)


def test_no_gpu_is_little_memory(manager: DynamicConfigManager) -> None:
    assert manager.get_optimal_config("llama", {}).torch_dtype == "float16"


def test_unknown_type_names_the_nearest(manager: DynamicConfigManager) -> None:
    with pytest.raises(
        ValueError, match=r"No config template found for model type: lama; did you mean 'llama'\?"
    ):
        manager.get_optimal_config("lama", {})


def test_profiles_lie_over_the_template(manager: DynamicConfigManager) -> None:
    manager.register_optimization_profile("plain", {"use_fused_layer_norm": False})
    assert manager.get_optimal_config("llama", {}, profile="plain").use_fused_layer_norm is False
    manager.register_optimization_profile("typo", {"use_fused_layernorm": False})
    with pytest.raises(ValueError, match="'use_fused_layernorm', which LlamaConfig does not have"):
        manager.get_optimal_config("llama", {}, profile="typo")
    with pytest.raises(ValueError, match="No profile found"):
        manager.get_optimal_config("llama", {}, profile="fast")
