"""Gemma 3 behind the standard's interface: the standard's own tests, and the lifecycle around them."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch

from inference_pio import create_plugin, initialize_plugin, manage_resources
from inference_pio.config import BaseModelConfig
from inference_pio.conformance import standard
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UsageError
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.models.gemma3_text.tests.case import GEMMA_METADATA
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry

_KV = {"kv_cache_memory_gb": 0.02}


def _config(path: Path, **fields: object) -> Gemma3TextConfig:
    return Gemma3TextConfig(model_path=str(path), torch_dtype="float32", do_sample=False, **fields)


class TestGemma3(standard.StandardModelTest):
    """The standard's test class on a tiny gemma3_text."""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_path: Path) -> None:
        self.path = tiny_path

    def create_plugin(self) -> ModelPlugin:
        return create_plugin("gemma3_text", config=_config(self.path))

    def get_config(self) -> BaseModelConfig:
        return _config(self.path)


def test_lifecycle(tiny_path: Path) -> None:
    plugin = create_plugin("gemma3_text")
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
    plugin = create_plugin("gemma3_text")
    with pytest.raises(ValueError, match="takes Gemma3TextConfig, got BaseModelConfig"):
        initialize_plugin(plugin, config=BaseModelConfig(model_path=str(tiny_path)))
    with pytest.raises(UsageError, match="head_dim is 64 in the configuration and 32 in the checkpoint"):
        plugin.initialize(config=_config(tiny_path, head_dim=64))


def test_the_registry_finds_gemma3_text_in_both_formats() -> None:
    registry = default_registry()
    assert registry.for_checkpoint({"architectures": ["Gemma3ForCausalLM"]}, "x").name == "gemma3_text"
    assert registry.for_checkpoint({"model_type": "gemma3_text"}, "x").name == "gemma3_text"
    assert registry.for_checkpoint(GEMMA_METADATA, "x").name == "gemma3_text"


def test_turns_end_where_the_models_end_them(subject: Subject) -> None:
    """The base models end a text with the tokenizer's own end; the chat models end a turn."""
    plugin = subject.plugin()
    chat = plugin.chat_format(Gemma3TextConfig())
    assert chat.end_of_turn == ("<end_of_turn>",)
    assert not chat.template_variables


def test_infer_takes_texts_and_token_ids(tiny_path: Path) -> None:
    plugin = create_plugin("gemma3_text", config=_config(tiny_path, max_new_tokens=6))
    alone = plugin.infer("the cat")
    assert plugin.infer(["the cat", "and"])[0] == alone
    assert plugin.infer([plugin.tokenize("the cat")]) == [alone]
    plugin.cleanup()
