"""Glm4_moe_lite behind the standard's interface: the standard's own tests, and the lifecycle around them."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from inference_pio import create_plugin, initialize_plugin, manage_resources
from inference_pio.config import BaseModelConfig
from inference_pio.conformance import standard
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ConfigError, UsageError
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.tests.case import GLM_4_7_FLASH
from inference_pio.parallel import Shard
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry

_KV = {"kv_cache_memory_gb": 0.01}


def _config(path: Path, **fields: object) -> Glm4MoeLiteConfig:
    return Glm4MoeLiteConfig(model_path=str(path), torch_dtype="float32", do_sample=False, **fields)


class TestGlm4MoeLite(standard.StandardModelTest):
    """The standard's test class on a tiny glm4_moe_lite."""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_path: Path) -> None:
        self.path = tiny_path

    def create_plugin(self) -> ModelPlugin:
        return create_plugin("glm4_moe_lite", config=_config(self.path))

    def get_config(self) -> BaseModelConfig:
        return _config(self.path)


def test_lifecycle(tiny_path: Path) -> None:
    plugin = create_plugin("glm4_moe_lite")
    assert initialize_plugin(plugin, config=_config(tiny_path), **_KV)
    text = plugin.generate_text("the cat", max_new_tokens=8, ignore_eos=True)
    monitored = manage_resources(plugin, "monitor")
    stored = sum(
        tensor.nbytes for tensor in safetensors.torch.load_file(tiny_path / "model.safetensors").values()
    )
    assert monitored["memory_usage"]["weights_bytes"] == stored
    assert monitored["compute_usage"]["generation_tokens"] == 8
    manage_resources(plugin, "optimize")
    assert plugin.generate_text("the cat", max_new_tokens=8, ignore_eos=True) == text
    assert manage_resources(plugin, "cleanup") is True
    assert plugin.load_model() is not None
    assert manage_resources(plugin, "cleanup") is True


def test_only_configurations_of_its_own_that_the_checkpoint_keeps(tiny_path: Path) -> None:
    plugin = create_plugin("glm4_moe_lite")
    with pytest.raises(ValueError, match="takes Glm4MoeLiteConfig, got BaseModelConfig"):
        initialize_plugin(plugin, config=BaseModelConfig(model_path=str(tiny_path)))
    with pytest.raises(UsageError, match="kv_lora_rank is 64 in the configuration and 32 in the checkpoint"):
        plugin.initialize(config=_config(tiny_path, kv_lora_rank=64))


def test_latents_are_not_kept_in_whole_numbers(tiny_path: Path) -> None:
    plugin = create_plugin("glm4_moe_lite")
    with pytest.raises(ConfigError, match="not kept in int8: use kv_cache_dtype auto"):
        plugin.initialize(config=_config(tiny_path), kv_cache_dtype="int8")


def test_what_a_token_takes_in_the_published_model(subject: Subject) -> None:
    config = Glm4MoeLiteConfig()
    specs = subject.plugin().cache_specs(config, torch.bfloat16, Shard())
    assert sum(spec.bytes_per_token() for spec in specs) == 54_144


def test_the_registry_finds_it() -> None:
    registry = default_registry()
    assert registry.for_checkpoint(GLM_4_7_FLASH, "x").name == "glm4_moe_lite"
    assert registry.for_checkpoint({"model_type": "glm4_moe_lite"}, "x").name == "glm4_moe_lite"


def test_turns_end_where_the_models_end_them(subject: Subject) -> None:
    """The tokens of `eos_token_id` in the published configuration, by name."""
    chat = subject.plugin().chat_format(Glm4MoeLiteConfig())
    assert set(chat.end_of_turn) == {"<|endoftext|>", "<|user|>", "<|observation|>"}
    assert not chat.template_variables


def test_infer_takes_texts_and_token_ids(tiny_path: Path) -> None:
    plugin = create_plugin("glm4_moe_lite", config=_config(tiny_path, max_new_tokens=6))
    alone = plugin.infer("the cat")
    assert plugin.infer(["the cat", "and"])[0] == alone
    assert plugin.infer([plugin.tokenize("the cat")]) == [alone]
    plugin.cleanup()
