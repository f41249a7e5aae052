"""Qwen3-MoE from a path to text."""

from __future__ import annotations

from pathlib import Path

from inference_pio import create_plugin, initialize_plugin
from inference_pio.conformance.subject import Subject
from inference_pio.llm import LLM
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0, max_tokens=20)


def test_every_format_gives_the_same_answer(subject: Subject, tiny_llm: LLM) -> None:
    ids = tiny_llm.get_tokenizer().encode("the cat and the hat")
    expected = tiny_llm.generate("the cat and the hat", _GREEDY)[0].outputs[0].token_ids
    for kind in ("sharded", "gguf"):
        path = str(subject.checkpoint("experts", kind))
        with LLM(path, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
            answer = llm.generate({"prompt_token_ids": ids}, _GREEDY)[0].outputs[0]
        assert answer.token_ids[: len(expected)] == expected


def test_the_plugin_and_the_facade_answer_alike(tiny_path: Path, tiny_llm: LLM) -> None:
    plugin = create_plugin("qwen3_moe")
    options = {"torch_dtype": "float32", "do_sample": False, "repetition_penalty": 1.0}
    config = Qwen3MoeConfig(model_path=str(tiny_path), **options)
    assert initialize_plugin(plugin, config=config, kv_cache_memory_gb=0.01)
    messages = [{"role": "user", "content": "the cat"}]
    expected = tiny_llm.chat(messages, _GREEDY)[0]
    assert plugin._format_chat_messages(messages) == expected.prompt
    assert plugin.chat_completion(messages, max_new_tokens=20) == expected.outputs[0].text
    assert plugin.detokenize(plugin.tokenize("Grüße, 你好")) == "Grüße, 你好"
    plugin.cleanup()
