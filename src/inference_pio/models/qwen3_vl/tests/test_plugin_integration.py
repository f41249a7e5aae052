"""Qwen3-VL behind the standard's interface: the standard's own tests, the lifecycle around them, its chat format."""

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
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.models.qwen3_vl.tests.case import PUBLISHED
from inference_pio.parallel import Shard
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry

_KV = {"kv_cache_memory_gb": 0.01}


def _config(path: Path, **fields: object) -> Qwen3VLConfig:
    return Qwen3VLConfig(model_path=str(path), torch_dtype="float32", do_sample=False, **fields)


class TestQwen3VL(standard.StandardModelTest):
    """The standard's test class on a tiny qwen3_vl."""

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_path: Path) -> None:
        self.path = tiny_path

    def create_plugin(self) -> ModelPlugin:
        return create_plugin("qwen3_vl", config=_config(self.path))

    def get_config(self) -> BaseModelConfig:
        return _config(self.path)


def test_lifecycle(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3_vl")
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
    plugin = create_plugin("qwen3_vl")
    with pytest.raises(ValueError, match="takes Qwen3VLConfig, got BaseModelConfig"):
        initialize_plugin(plugin, config=BaseModelConfig(model_path=str(tiny_path)))
    with pytest.raises(UsageError, match="head_dim is 64 in the configuration and 32 in the checkpoint"):
        plugin.initialize(config=_config(tiny_path, head_dim=64))


def test_the_registry_finds_qwen3_vl_and_not_its_relatives(subject: Subject) -> None:
    registry = default_registry()
    for raw in (*PUBLISHED["configs"].values(), {"model_type": "qwen3_vl"}):
        assert registry.for_checkpoint(raw, "x").name == "qwen3_vl"
    for architecture in (
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3VLModel",
    ):
        with pytest.raises(UnsupportedArchitecture, match=architecture):
            registry.for_checkpoint({"architectures": [architecture], "model_type": "qwen3_vl"}, "x")
    with pytest.raises(UnsupportedArchitecture, match="qwen3vl"):
        registry.for_checkpoint({"general.architecture": "qwen3vl"}, "x")
    assert subject.manifest.modalities == ("text", "image")


def test_turns_end_where_the_models_end_them(subject: Subject) -> None:
    chat = subject.plugin().chat_format(Qwen3VLConfig())
    assert chat.end_of_turn == ("<|im_end|>", "<|endoftext|>")
    assert not chat.template_variables


def test_bytes_of_a_token(subject: Subject) -> None:
    """The size that `kv_cache` states for the default model, of a token of a text and of an image alike."""
    found = {}
    for name, raw in PUBLISHED["configs"].items():
        specs = subject.plugin().cache_specs(Qwen3VLConfig.read(raw, name), torch.bfloat16, Shard())
        found[name] = sum(spec.bytes_per_token() for spec in specs)
    assert found == {"Qwen3-VL-2B-Instruct": 114_688, "Qwen3-VL-4B-Instruct": 147_456}


def test_infer_takes_texts_and_token_ids(tiny_path: Path) -> None:
    plugin = create_plugin("qwen3_vl", config=_config(tiny_path, max_new_tokens=6))
    alone = plugin.infer("the cat")
    assert plugin.infer(["the cat", "and"])[0] == alone
    assert plugin.infer([plugin.tokenize("the cat")]) == [alone]
    plugin.cleanup()
