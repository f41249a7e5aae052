"""Qwen2 behind the standard's interface: the standard's own tests, and the lifecycle around them."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch

from inference_pio import create_plugin, initialize_plugin, manage_resources
from inference_pio.config import BaseModelConfig
from inference_pio.conformance import standard
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UsageError
from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.models.qwen2.tests.case import CODER_METADATA
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry

_KV = {"kv_cache_memory_gb": 0.01}


def _config(path: Path, **fields: object) -> Qwen2Config:
    return Qwen2Config(model_path=str(path), torch_dtype="float32", do_sample=False, **fields)


class TestQwen2(standard.StandardModelTest):
    """The standard's test class on a tiny qwen2."""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_path: Path) -> None:
        self.path = tiny_path

    def create_plugin(self) -> ModelPlugin:
        return create_plugin("qwen2", config=_config(self.path))

    def get_config(self) -> BaseModelConfig:
        return _config(self.path)


def test_lifecycle(tiny_path: Path) -> None:
    plugin = create_plugin("qwen2")
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
    plugin = create_plugin("qwen2")
    with pytest.raises(ValueError, match="takes Qwen2Config, got BaseModelConfig"):
        initialize_plugin(plugin, config=BaseModelConfig(model_path=str(tiny_path)))
    with pytest.raises(UsageError, match="head_dim is 64 in the configuration and 16 in the checkpoint"):
        plugin.initialize(config=_config(tiny_path, head_dim=64))


def test_the_registry_finds_qwen2_in_both_formats() -> None:
    registry = default_registry()
    assert registry.for_checkpoint({"architectures": ["Qwen2ForCausalLM"]}, "x").name == "qwen2"
    assert registry.for_checkpoint({"model_type": "qwen2"}, "x").name == "qwen2"
    assert registry.for_checkpoint(CODER_METADATA, "x").name == "qwen2"


def test_turns_end_where_the_models_end_them(subject: Subject) -> None:
    """The instruction-tuned models end a turn; the base models of the same files end a text."""
    plugin = subject.plugin()
    chat = plugin.chat_format(Qwen2Config())
    assert chat.end_of_turn == ("<|im_end|>", "<|endoftext|>")
    assert not chat.template_variables


def test_infer_takes_texts_and_token_ids(tiny_path: Path) -> None:
    plugin = create_plugin("qwen2", config=_config(tiny_path, max_new_tokens=6))
    alone = plugin.infer("the cat")
    assert plugin.infer(["the cat", "and"])[0] == alone
    assert plugin.infer([plugin.tokenize("the cat")]) == [alone]
    plugin.cleanup()
