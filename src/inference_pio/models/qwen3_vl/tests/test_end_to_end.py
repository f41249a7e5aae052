"""Qwen3-VL from a path to text, in conversations too. Images on their way in: the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_pio import create_plugin, initialize_plugin
from inference_pio.conformance.subject import Subject
from inference_pio.errors import CheckpointMismatch, ModelFileError
from inference_pio.llm import LLM
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.models.qwen3_vl.linear_optimizations.dense_map import DenseMap
from inference_pio.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0, max_tokens=20)
_KV = {"kv_cache_memory_gb": 0.01}


def test_every_format_gives_the_same_answer(subject: Subject, tiny_llm: LLM) -> None:
    ids = tiny_llm.get_tokenizer().encode("the cat and the hat")
    expected = tiny_llm.generate("the cat and the hat", _GREEDY)[0].outputs[0].token_ids
    path = str(subject.checkpoint("grouped", "sharded"))
    with LLM(path, dtype="float32", skip_tokenizer_init=True, **_KV) as llm:
        answer = llm.generate({"prompt_token_ids": ids}, _GREEDY)[0].outputs[0]
    assert answer.token_ids[: len(expected)] == expected


def test_the_plugin_and_the_facade_answer_alike(tiny_path: Path, tiny_llm: LLM) -> None:
    plugin = create_plugin("qwen3_vl")
    config = Qwen3VLConfig(
        model_path=str(tiny_path), torch_dtype="float32", do_sample=False, repetition_penalty=1.0
    )
    assert initialize_plugin(plugin, config=config, **_KV)
    messages = [{"role": "user", "content": "the cat"}]
    expected = tiny_llm.chat(messages, _GREEDY)[0]
    assert plugin._format_chat_messages(messages) == expected.prompt
    assert plugin.chat_completion(messages, max_new_tokens=20) == expected.outputs[0].text
    assert plugin.detokenize(plugin.tokenize("Grüße, 你好")) == "Grüße, 你好"
    plugin.cleanup()


def test_quantising_leaves_the_vision_tower_alone(subject: Subject) -> None:
    """Of the text every map is in blocks of 8 bits; of the tower each holds the checkpoint's numbers."""
    expected = dict(subject.reference("grouped").model.named_parameters())
    with LLM(str(subject.checkpoint("grouped")), quantize="int8", **_KV) as llm:
        model = llm.plugin.load_model()
        answer = llm.generate("the cat", _GREEDY)[0].outputs[0]
    assert answer.token_ids
    text = model.model.language_model.layers[0]
    assert type(text.mlp.down_proj.packed).__name__ == "QuantizedWeight"
    dense = {name: module for name, module in model.named_modules() if isinstance(module, DenseMap)}
    assert len(dense) == 1 + 4 * 4 + 3 * 2
    for name, module in dense.items():
        wanted = expected[f"{name}.weight"]
        assert module.weight.allclose(wanted.to(module.weight.dtype).reshape(module.weight.shape), atol=1e-2)


def test_a_text_model_of_the_family_is_no_vision_model(subject: Subject, tmp_path: Path) -> None:
    """Weights without a tower, under the configuration of one, name what is missing."""
    import json
    import shutil

    import safetensors.torch

    source = subject.checkpoint("grouped")
    shutil.copytree(source, tmp_path / "copy")
    held = safetensors.torch.load_file(source / "model.safetensors")
    text = {name: tensor for name, tensor in held.items() if ".visual." not in name}
    safetensors.torch.save_file(text, tmp_path / "copy" / "model.safetensors")
    with pytest.raises(CheckpointMismatch, match="missing: model.visual"):
        LLM(str(tmp_path / "copy"), **_KV)
    raw = json.loads((source / "config.json").read_text())
    del raw["vision_config"]
    (tmp_path / "copy" / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelFileError, match="vision_config.*is missing"):
        LLM(str(tmp_path / "copy"), **_KV)
