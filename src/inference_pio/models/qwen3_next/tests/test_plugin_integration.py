"""Qwen3-Next behind the standard's interface: the standard's own tests, and the lifecycle around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_pio import create_plugin, initialize_plugin, manage_resources
from inference_pio.config import BaseModelConfig
from inference_pio.conformance import standard
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UnsupportedArchitecture, UsageError
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry


def _config(path: Path, **fields: object) -> Qwen3NextConfig:
    return Qwen3NextConfig(model_path=str(path), torch_dtype="float32", do_sample=False, **fields)


class TestQwen3Next(standard.StandardModelTest):
    """The standard's test class on a tiny qwen3_next."""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_path: Path) -> None:
        self.path = tiny_path

    def create_plugin(self) -> ModelPlugin:
        return create_plugin("qwen3_next", config=_config(self.path))

    def get_config(self) -> BaseModelConfig:
        return _config(self.path)


def test_lifecycle(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3_next")
    assert initialize_plugin(plugin, config=_config(tiny_path), kv_cache_memory_gb=0.01)
    text = plugin.generate_text("the hat", max_new_tokens=8, ignore_eos=True)
    monitored = manage_resources(plugin, "monitor")
    assert monitored["compute_usage"]["generation_tokens"] == 8
    assert monitored["memory_usage"]["kv_cache_used_bytes"] == 0
    manage_resources(plugin, "optimize")
    assert plugin.generate_text("the hat", max_new_tokens=8, ignore_eos=True) == text
    assert manage_resources(plugin, "cleanup") is True
    assert plugin.load_model() is not None
    assert manage_resources(plugin, "cleanup") is True


def test_the_checkpoint_decides_the_architecture(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3_next")
    with pytest.raises(UsageError, match="num_experts is 16 in the configuration and 8 in the checkpoint"):
        plugin.initialize(config=_config(tiny_path, num_experts=16))
    with pytest.raises(ValueError, match="takes Qwen3NextConfig, got BaseModelConfig"):
        initialize_plugin(plugin, config=BaseModelConfig(model_path=str(tiny_path)))


def test_the_registry_finds_qwen3_next() -> None:
    registry = default_registry()
    assert registry.for_checkpoint({"architectures": ["Qwen3NextForCausalLM"]}, "x").name == "qwen3_next"
    assert registry.for_checkpoint({"model_type": "qwen3_next"}, "x").name == "qwen3_next"
    assert registry.for_checkpoint({"general.architecture": "qwen3next"}, "x").name == "qwen3_next"
    with pytest.raises(UnsupportedArchitecture):
        registry.for_checkpoint({"general.architecture": "qwen35moe"}, "x")
    assert registry.get("qwen3_next").manifest.capabilities.recurrent_state


def test_turns_end_where_the_models_end_them(subject: Subject) -> None:
    chat = subject.plugin().chat_format(Qwen3NextConfig())
    assert chat.end_of_turn == ("<|im_end|>", "<|endoftext|>")
