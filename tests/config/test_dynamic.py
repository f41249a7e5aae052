"""The standard's thresholds, templates and profiles."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
import torch

from inference_pio import (
    BaseModelConfig,
    DynamicConfigManager,
    create_plugin,
    default_config_manager,
    hardware_specs,
)
from inference_pio.config import PROFILES
from inference_pio.models.llama.config import LlamaConfig
from inference_pio.plugin.registry import BUILT_IN
from inference_pio.plugin.runtime import RuntimeOptions


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


@pytest.mark.parametrize("said", ["8", None, float("nan"), -1])
def test_gpu_memory_that_is_no_number_is_told(manager: DynamicConfigManager, said: object) -> None:
    with pytest.raises(ValueError, match="gpu_memory_gb must be a number of GB from 0 up, got"):
        manager.get_optimal_config("llama", {"gpu_memory_gb": said})


def test_a_type_like_no_other_names_all_that_there_are(manager: DynamicConfigManager) -> None:
    with pytest.raises(ValueError, match="No config template found for model type: zzz; there are .*llama"):
        manager.get_optimal_config("zzz", {})


def test_profiles_lie_over_the_template(manager: DynamicConfigManager) -> None:
    manager.register_optimization_profile("plain", {"use_fused_layer_norm": False})
    assert manager.get_optimal_config("llama", {}, profile="plain").use_fused_layer_norm is False
    manager.register_optimization_profile("typo", {"use_fused_layernorm": False})
    with pytest.raises(ValueError, match="'use_fused_layernorm', which LlamaConfig does not have"):
        manager.get_optimal_config("llama", {}, profile="typo")
    with pytest.raises(ValueError, match="No profile found"):
        manager.get_optimal_config("llama", {}, profile="fast")


def test_the_usual_profiles_name_fields_that_there_are() -> None:
    assert list(PROFILES) == ["latency", "throughput", "memory", "quality"]
    known = {field.name for field in fields(BaseModelConfig)}
    for profile in PROFILES.values():
        assert profile.purpose
        assert set(profile.config) <= known
        RuntimeOptions(**profile.engine)


@pytest.mark.parametrize("name", PROFILES)
def test_a_usual_profile_sets_its_fields(manager: DynamicConfigManager, name: str) -> None:
    config = manager.get_optimal_config("llama", {"gpu_memory_gb": 16}, profile=name)
    assert {field: getattr(config, field) for field in PROFILES[name].config} == PROFILES[name].config
    assert manager.get_engine_options(name) == PROFILES[name].engine


def test_a_profile_stands_above_the_thresholds(manager: DynamicConfigManager) -> None:
    assert (
        manager.get_optimal_config("llama", {"gpu_memory_gb": 2}, profile="quality").torch_dtype == "float32"
    )


def test_a_profile_of_ones_own(manager: DynamicConfigManager) -> None:
    manager.register_optimization_profile("mine", {"use_prefix_caching": False}, {"block_size": 8})
    assert manager.get_engine_options("mine") == {"block_size": 8}
    assert "mine" not in DynamicConfigManager().optimization_profiles
    with pytest.raises(ValueError, match="did you mean 'latency'"):
        manager.get_engine_options("latencies")


def test_every_plugin_is_a_template() -> None:
    manager = default_config_manager()
    assert set(BUILT_IN) <= set(manager.config_templates)
    for name in BUILT_IN:
        assert type(manager.get_optimal_config(name, {})) is create_plugin(name).config_class


def test_this_machine_is_specs_enough() -> None:
    specs = hardware_specs()
    found = [torch.cuda.get_device_properties(gpu) for gpu in range(torch.cuda.device_count())]
    assert specs["gpu_memory_gb"] == max((gpu.total_memory / 1e9 for gpu in found), default=0)
    config = default_config_manager().get_optimal_config("llama", specs, profile="latency")
    assert config.torch_dtype == "auto"


def test_a_manager_imports_no_torch() -> None:
    program = (
        "import inference_pio, sys; inference_pio.default_config_manager(); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
