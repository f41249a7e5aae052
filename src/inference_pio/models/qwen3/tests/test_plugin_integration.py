"""Qwen3 behind the standard's interface: the standard's own tests, the lifecycle around them, its chat format."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from inference_pio import create_plugin, initialize_plugin, manage_resources
from inference_pio.config import BaseModelConfig
from inference_pio.conformance import standard
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UnsupportedArchitecture, UsageError
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.models.qwen3.tests.case import PUBLISHED, SMALLEST_GGUF
from inference_pio.parallel import Shard
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry

_KV = {"kv_cache_memory_gb": 0.01}


def _config(path: Path, **fields: object) -> Qwen3Config:
    return Qwen3Config(model_path=str(path), torch_dtype="float32", do_sample=False, **fields)


class TestQwen3(standard.StandardModelTest):
    """The standard's test class on a tiny qwen3."""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_path: Path) -> None:
        self.path = tiny_path

    def create_plugin(self) -> ModelPlugin:
        return create_plugin("qwen3", config=_config(self.path))

    def get_config(self) -> BaseModelConfig:
        return _config(self.path)


def test_lifecycle(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3")
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
    plugin = create_plugin("qwen3")
    with pytest.raises(ValueError, match="takes Qwen3Config, got BaseModelConfig"):
        initialize_plugin(plugin, config=BaseModelConfig(model_path=str(tiny_path)))
    with pytest.raises(UsageError, match="head_dim is 64 in the configuration and 32 in the checkpoint"):
        plugin.initialize(config=_config(tiny_path, head_dim=64))


def test_the_registry_finds_qwen3_and_not_its_relatives() -> None:
    registry = default_registry()
    for raw in (*PUBLISHED["configs"].values(), {"model_type": "qwen3"}, SMALLEST_GGUF.raw):
        assert registry.for_checkpoint(raw, "x").name == "qwen3"
    classifier = {"architectures": ["Qwen3ForSequenceClassification"], "model_type": "qwen3"}
    with pytest.raises(UnsupportedArchitecture, match="Qwen3ForSequenceClassification"):
        registry.for_checkpoint(classifier, "x")


def test_turns_end_where_the_models_end_them_and_thinking_is_the_callers(subject: Subject) -> None:
    """The chat models end a turn, the base models of the same architecture end a text."""
    chat = subject.plugin().chat_format(Qwen3Config())
    assert chat.end_of_turn == ("<|im_end|>", "<|endoftext|>")
    assert not chat.template_variables


def test_bytes_of_a_token(subject: Subject) -> None:
    """The size that `kv_cache` states for the default model; with 8 KV heads in every size, layers alone differ."""
    found = {}
    for name, raw in PUBLISHED["configs"].items():
        specs = subject.plugin().cache_specs(Qwen3Config.read(raw, name), torch.bfloat16, Shard())
        found[name] = sum(spec.bytes_per_token() for spec in specs)
    assert found == {
        "Qwen3-0.6B": 114_688,
        "Qwen3-1.7B": 114_688,
        "Qwen3-4B-Instruct-2507": 147_456,
        "Qwen3-8B": 147_456,
        "Qwen3-32B": 262_144,
    }


def test_infer_takes_texts_and_token_ids(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3", config=_config(tiny_path, max_new_tokens=6))
    alone = plugin.infer("the cat")
    assert plugin.infer(["the cat", "and"])[0] == alone
    assert plugin.infer([plugin.tokenize("the cat")]) == [alone]
    plugin.cleanup()
