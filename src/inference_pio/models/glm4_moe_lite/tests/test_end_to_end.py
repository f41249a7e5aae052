"""Glm4_moe_lite from a path to text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from inference_pio import create_plugin, initialize_plugin
from inference_pio.conformance.subject import Subject
from inference_pio.llm import LLM
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.tests.case import TEMPLATE
from inference_pio.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0, max_tokens=20)


def test_every_format_gives_the_same_answer(subject: Subject, tiny_llm: LLM) -> None:
    ids = tiny_llm.get_tokenizer().encode("the cat and the hat")
    expected = tiny_llm.generate("the cat and the hat", _GREEDY)[0].outputs[0].token_ids
    path = str(subject.checkpoint("low-rank", "sharded"))
    with LLM(path, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
        answer = llm.generate({"prompt_token_ids": ids}, _GREEDY)[0].outputs[0]
    assert answer.token_ids[: len(expected)] == expected


def test_the_plugin_and_the_facade_answer_alike(tiny_path: Path, tmp_path: Path) -> None:
    """With the published template: a conversation ends in the opening of the model's thinking."""
    path = shutil.copytree(tiny_path, tmp_path / "tiny-glm")
    facts = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**facts, "chat_template": TEMPLATE}))
    config = Glm4MoeLiteConfig(
        model_path=str(path), torch_dtype="float32", do_sample=False, repetition_penalty=1.0
    )
    plugin = create_plugin("glm4_moe_lite")
    assert initialize_plugin(plugin, config=config, kv_cache_memory_gb=0.01)
    messages = [{"role": "user", "content": "the cat"}]
    prompt = "[gMASK]<sop><|user|>the cat<|assistant|><think>"
    assert plugin._format_chat_messages(messages) == prompt
    with LLM(str(path), dtype="float32", kv_cache_memory_gb=0.01) as llm:
        expected = llm.chat(messages, _GREEDY)[0]
        written = llm.generate(llm.format_chat(messages), _GREEDY)[0].outputs[0].text
        alone = llm.generate("the cat", _GREEDY)[0].outputs[0].text
    assert expected.prompt == prompt
    answer = expected.outputs[0]
    assert (answer.text, answer.reasoning) == ("", written.strip("\n")), "these weights never stop thinking"
    assert plugin.chat_completion(messages, max_new_tokens=20) == written
    assert plugin.generate_text("the cat", max_new_tokens=20) == alone
    assert plugin.detokenize(plugin.tokenize("Grüße, 你好")) == "Grüße, 你好"
    plugin.cleanup()
