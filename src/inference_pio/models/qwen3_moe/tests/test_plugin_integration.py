"""Qwen3-MoE behind the standard's interface: the standard's own tests, and the lifecycle around them."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch

from inference_pio import create_plugin, initialize_plugin, manage_resources
from inference_pio.config import BaseModelConfig
from inference_pio.conformance import standard
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UsageError
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.models.qwen3_moe.tests.case import CODER
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry


def _config(path: Path, **fields: object) -> Qwen3MoeConfig:
    return Qwen3MoeConfig(model_path=str(path), torch_dtype="float32", do_sample=False, **fields)


class TestQwen3Moe(standard.StandardModelTest):
    """The standard's test class on a tiny qwen3_moe."""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_path: Path) -> None:
        self.path = tiny_path

    def create_plugin(self) -> ModelPlugin:
        return create_plugin("qwen3_moe", config=_config(self.path))

    def get_config(self) -> BaseModelConfig:
        return _config(self.path)


def test_weights_take_what_the_file_has(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3_moe")
    assert initialize_plugin(plugin, config=_config(tiny_path), kv_cache_memory_gb=0.01)
    answer = plugin.generate_text("the cat", max_new_tokens=8, ignore_eos=True)
    monitored = manage_resources(plugin, "monitor")
    tensors = safetensors.torch.load_file(tiny_path / "model.safetensors").values()
    assert monitored["memory_usage"]["weights_bytes"] == sum(tensor.nbytes for tensor in tensors)
    assert manage_resources(plugin, "cleanup") is True
    assert plugin.load_model() is not None, "it can be loaded again"
    assert plugin.generate_text("the cat", max_new_tokens=8, ignore_eos=True) == answer
    plugin.cleanup()


def test_a_configuration_that_the_checkpoint_contradicts(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3_moe")
    with pytest.raises(ValueError, match="takes Qwen3MoeConfig, got BaseModelConfig"):
        initialize_plugin(plugin, config=BaseModelConfig(model_path=str(tiny_path)))
    with pytest.raises(UsageError, match="num_experts is 16 in the configuration and 8 in the checkpoint"):
        plugin.initialize(config=_config(tiny_path, num_experts=16))


def test_the_registry_finds_it_in_both_formats() -> None:
    registry = default_registry()
    for raw in (CODER, {"model_type": "qwen3_moe"}, {"general.architecture": "qwen3moe"}):
        assert registry.for_checkpoint(raw, "x").name == "qwen3_moe"


def test_turns_end_where_the_models_end_them(subject: Subject) -> None:
    """eos_token_id of the published generation_config.json: 151645 and 151643, in words."""
    chat = subject.plugin().chat_format(Qwen3MoeConfig())
    assert chat.end_of_turn == ("<|im_end|>", "<|endoftext|>")
    assert not chat.template_variables, "templates of this architecture print no date"


def test_infer_takes_texts_and_token_ids(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3_moe", config=_config(tiny_path, max_new_tokens=6))
    alone = plugin.infer("the cat")
    assert plugin.infer(["and", "the cat"])[1] == alone
    assert plugin.infer([plugin.tokenize("the cat")]) == [alone]
    plugin.cleanup()
