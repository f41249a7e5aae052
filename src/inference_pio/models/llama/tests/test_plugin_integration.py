"""Llama behind the standard's interface: the standard's own tests, and the lifecycle around them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference_pio import ResourceLimits, SecurityLevel, create_plugin, initialize_plugin, manage_resources
from inference_pio.config import BaseModelConfig
from inference_pio.conformance import standard
from inference_pio.errors import ModelNotFound, PluginError, ResourceError, UsageError
from inference_pio.models.llama.config import LlamaConfig
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry

_KV = {"kv_cache_memory_gb": 0.01}


def _config(path: Path, **fields: object) -> LlamaConfig:
    return LlamaConfig(model_path=str(path), torch_dtype="float32", do_sample=False, **fields)


class TestLlama(standard.StandardModelTest):
    """The standard's test class on a tiny llama."""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_path: Path) -> None:
        self.path = tiny_path

    def create_plugin(self) -> ModelPlugin:
        return create_plugin("llama", config=_config(self.path))

    def get_config(self) -> BaseModelConfig:
        return _config(self.path)


def test_lifecycle(tiny_path: Path) -> None:
    plugin = create_plugin("llama")
    assert initialize_plugin(plugin, config=_config(tiny_path), **_KV)
    text = plugin.generate_text("the cat", max_new_tokens=8, ignore_eos=True)
    monitored = manage_resources(plugin, "monitor")
    assert monitored["memory_usage"]["weights_bytes"] == sum(
        parameter.nbytes for parameter in _reference_parameters(tiny_path)
    )
    assert monitored["compute_usage"]["generation_tokens"] == 8
    assert monitored["disk_usage"]["model_bytes"] == monitored["memory_usage"]["weights_bytes"]
    assert set(monitored["limits"]["limits"]) > set(vars(ResourceLimits()))
    optimized = manage_resources(plugin, "optimize")
    assert optimized["process_bytes_before"] > 0
    assert optimized["process_bytes_after"] > 0
    assert plugin.generate_text("the cat", max_new_tokens=8, ignore_eos=True) == text
    assert manage_resources(plugin, "cleanup") is True
    assert manage_resources(plugin, "cleanup") is True
    with pytest.raises(UsageError, match="cleanup, monitor and optimize"):
        manage_resources(plugin, "polish")


def _reference_parameters(path: Path) -> list[torch.Tensor]:
    import safetensors.torch

    return list(safetensors.torch.load_file(path / "model.safetensors").values())


def test_optimize_empties_the_prefix_cache(tiny_path: Path) -> None:
    plugin = create_plugin("llama")
    assert initialize_plugin(plugin, config=_config(tiny_path), block_size=16, **_KV)
    hits = []
    for _ in range(2):
        for _ in range(2):
            plugin.generate_text("a" * 40, max_new_tokens=2)
            hits.append(plugin.get_compute_stats()["prefix_cache_hit_tokens"])
        manage_resources(plugin, "optimize")
    assert hits == [0, 32, 32, 64]
    with pytest.raises(UsageError, match="optimize knows no speed"):
        manage_resources(plugin, "optimize", speed=1)
    plugin.cleanup()


def test_misuse_raises(tiny_path: Path) -> None:
    plugin = create_plugin("llama")
    with pytest.raises(UsageError, match=r"initialize does not know bach_size; it takes .*max_num_seqs"):
        plugin.initialize(config=_config(tiny_path), bach_size=4)
    with pytest.raises(ValueError, match="takes LlamaConfig, got BaseModelConfig"):
        initialize_plugin(plugin, config=BaseModelConfig(model_path=str(tiny_path)))
    with pytest.raises(UsageError, match="takes LlamaConfig, got BaseModelConfig"):
        plugin.initialize(config=BaseModelConfig(model_path=str(tiny_path)))
    with pytest.raises(UsageError, match="hidden_size is 128 in the configuration and 64 in the checkpoint"):
        plugin.initialize(config=_config(tiny_path, hidden_size=128))
    with pytest.raises(ModelNotFound):
        plugin.initialize(config=_config(tiny_path / "nothing-here.gguf"))
    with pytest.raises(UsageError, match="SecurityLevel and ResourceLimits"):
        plugin.initialize_security("high_trust", ResourceLimits())
    with pytest.raises(PluginError, match="not initialised"):
        plugin.runtime.load()
    assert plugin.last_error is None


def test_a_limit_that_is_too_small_gives_false_and_the_arithmetic(tiny_path: Path) -> None:
    plugin = create_plugin("llama", config=_config(tiny_path))
    small = ResourceLimits(memory_gb=0.1)
    assert plugin.initialize(resource_limits=small) is False
    assert isinstance(plugin.last_error, ResourceError)
    message = str(plugin.last_error)
    assert "weights 0.00 + KV cache " in message
    assert "> 0.10 GB memory_gb" in message
    assert "at least" in message
    with pytest.raises(ResourceError, match="memory_gb"):
        plugin.load_model()
    assert plugin.initialize(config=_config(tiny_path), resource_limits=ResourceLimits(memory_gb=2), **_KV)
    assert plugin.last_error is None
    plugin.cleanup()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_here_gives_false(tiny_path: Path) -> None:
    plugin = create_plugin("llama")
    assert plugin.initialize(config=_config(tiny_path, device="cuda")) is False
    assert "cuda is not here: torch sees 0 CUDA devices" in str(plugin.last_error)
    with pytest.raises(UsageError, match="device must be"):
        plugin.initialize(config=_config(tiny_path, device="tpu"))


def test_the_security_report_says_what_is_held_and_what_is_not(tiny_path: Path) -> None:
    plugin = create_plugin("llama")
    assert plugin.get_security_report() == {}
    limits = ResourceLimits(cpu_percent=100, memory_gb=3, gpu_memory_gb=0)
    level = SecurityLevel.LOW_TRUST
    assert initialize_plugin(
        plugin, config=_config(tiny_path), security_level=level, resource_limits=limits, **_KV
    )
    assert manage_resources(plugin, "monitor")["compute_usage"]["compute_threads"] == 1
    report = plugin.get_security_report()
    assert report["security_level"] == "low_trust"
    held = {name: report["limits"][name]["state"] for name in vars(limits)}
    assert set(held.values()) <= {"VERIFIED", "SET"}
    assert report["limits"]["memory_gb"]["value"] == 3
    with pytest.raises(PluginError, match="runs in worker process"):
        plugin.load_model()(torch.zeros(1))
    plugin.cleanup()


def test_the_registry_finds_llama_in_both_formats() -> None:
    registry = default_registry()
    assert registry.for_checkpoint({"architectures": ["LlamaForCausalLM"]}, "x").name == "llama"
    assert registry.for_checkpoint({"general.architecture": "llama"}, "x").name == "llama"


def test_infer_takes_texts_and_token_ids(tiny_path: Path) -> None:
    plugin = create_plugin("llama", config=_config(tiny_path, max_new_tokens=6))
    alone = plugin.infer("the cat")
    assert plugin.infer(["the cat", "and"])[0] == alone
    assert plugin.infer([plugin.tokenize("the cat")]) == [alone]
    for wrong in (3, [], None):
        with pytest.raises(UsageError):
            plugin.infer(wrong)
    plugin.cleanup()
