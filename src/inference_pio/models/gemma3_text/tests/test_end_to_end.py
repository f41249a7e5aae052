"""Gemma 3 from a path to text."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_pio import create_plugin, initialize_plugin
from inference_pio.conformance.subject import Subject
from inference_pio.conformance.tiny_tokenizer import END_OF_TURN
from inference_pio.errors import ModelNotFound
from inference_pio.llm import LLM
from inference_pio.loader.resolve import resolve
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0, max_tokens=20)


def test_every_format_gives_the_same_answer(subject: Subject, tiny_llm: LLM) -> None:
    ids = tiny_llm.get_tokenizer().encode("the cat and the hat")
    expected = tiny_llm.generate("the cat and the hat", _GREEDY)[0].outputs[0].token_ids
    for kind in ("sharded", "gguf"):
        path = str(subject.checkpoint("five-to-one", kind))
        with LLM(path, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_gb=0.02) as llm:
            answer = llm.generate({"prompt_token_ids": ids}, _GREEDY)[0].outputs[0]
        assert answer.token_ids[: len(expected)] == expected


def test_the_plugin_and_the_facade_answer_alike(tiny_path: Path, tiny_llm: LLM) -> None:
    plugin = create_plugin("gemma3_text")
    config = Gemma3TextConfig(
        model_path=str(tiny_path), torch_dtype="float32", do_sample=False, repetition_penalty=1.0
    )
    assert initialize_plugin(plugin, config=config, kv_cache_memory_gb=0.02)
    messages = [{"role": "user", "content": "the cat"}]
    prompt = f"<|im_start|>user\nthe cat{END_OF_TURN}\n<|im_start|>assistant\n"
    assert plugin._format_chat_messages(messages) == prompt
    expected = tiny_llm.chat(messages, _GREEDY)[0]
    assert expected.prompt == prompt
    assert plugin.chat_completion(messages, max_new_tokens=20) == expected.outputs[0].text
    assert (
        plugin.generate_text("the cat", max_new_tokens=20)
        == tiny_llm.generate("the cat", _GREEDY)[0].outputs[0].text
    )
    assert plugin.detokenize(plugin.tokenize("Grüße, 你好")) == "Grüße, 你好"
    plugin.cleanup()


@pytest.mark.slow
@pytest.mark.weights
def test_the_default_model_answers() -> None:
    """The catalogue's model, by name; a base model goes on with a text. Its terms are for whoever downloads it."""
    try:
        resolve("gemma-3-270m", download=False)
    except ModelNotFound as missing:
        pytest.skip(str(missing))
    plugin = create_plugin("gemma3_text")
    assert initialize_plugin(plugin)
    answer = plugin.generate_text("Paris is the capital of", max_new_tokens=8, do_sample=False)
    plugin.cleanup()
    assert answer.startswith(" France")
