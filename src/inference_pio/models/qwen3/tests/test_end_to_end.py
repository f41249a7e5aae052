"""Qwen3 from a path to text, in conversations too."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from inference_pio import create_plugin, initialize_plugin
from inference_pio.conformance.subject import Subject
from inference_pio.conformance.tiny_tokenizer import BOS, EOS, write_tokenizer
from inference_pio.llm import LLM
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.models.qwen3.tests.case import PUBLISHED, render_chat
from inference_pio.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0, max_tokens=20)
_BLOCK = 16
_THINKS, _INSTRUCT = "Qwen3-0.6B", "Qwen3-4B-Instruct-2507"
Messages = list[dict[str, str]]


def test_every_format_gives_the_same_answer(subject: Subject, tiny_llm: LLM) -> None:
    ids = tiny_llm.get_tokenizer().encode("the cat and the hat")
    expected = tiny_llm.generate("the cat and the hat", _GREEDY)[0].outputs[0].token_ids
    for kind in ("sharded", "gguf"):
        path = str(subject.checkpoint("grouped", kind))
        with LLM(path, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
            answer = llm.generate({"prompt_token_ids": ids}, _GREEDY)[0].outputs[0]
        assert answer.token_ids[: len(expected)] == expected


@pytest.fixture(scope="module")
def with_template(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint with a published chat template."""

    def make(name: str) -> Path:
        directory = tmp_path_factory.mktemp("chat") / name
        shutil.copytree(subject.checkpoint("grouped"), directory)
        write_tokenizer(directory, PUBLISHED["templates"][name])
        return directory

    return make


def _rendered(name: str, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    stated = {"add_generation_prompt": True, "bos_token": BOS, "eos_token": EOS, **variables}
    return render_chat(PUBLISHED["templates"][name], messages, stated)


def test_the_plugin_and_the_facade_answer_alike(with_template: Callable[[str], Path]) -> None:
    path = with_template(_THINKS)
    plugin = create_plugin("qwen3")
    config = Qwen3Config(model_path=str(path), torch_dtype="float32", do_sample=False, repetition_penalty=1.0)
    assert initialize_plugin(plugin, config=config, kv_cache_memory_gb=0.01)
    messages = [{"role": "user", "content": "the cat"}]
    prompt = _rendered(_THINKS, messages)
    assert plugin._format_chat_messages(messages) == prompt
    with LLM(str(path), dtype="float32", kv_cache_memory_gb=0.01) as llm:
        expected = llm.chat(messages, _GREEDY)[0]
    assert expected.prompt == prompt
    assert plugin.chat_completion(messages, max_new_tokens=20) == expected.outputs[0].text
    assert plugin.detokenize(plugin.tokenize("Grüße, 你好")) == "Grüße, 你好"
    plugin.cleanup()


def test_the_caller_decides_whether_it_thinks(with_template: Callable[[str], Path]) -> None:
    """Nothing is said unless the caller says it; `enable_thinking` false closes the thoughts before they begin."""
    messages = [{"role": "user", "content": "the cat"}]
    with LLM(str(with_template(_THINKS)), dtype="float32", kv_cache_memory_gb=0.01) as llm:
        silent = llm.format_chat(messages)
        thinks, does_not = (
            llm.format_chat(messages, chat_template_kwargs={"enable_thinking": value})
            for value in (True, False)
        )
    assert silent == thinks == _rendered(_THINKS, messages)
    assert does_not == _rendered(_THINKS, messages, enable_thinking=False)
    assert does_not == f"{thinks}<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("name", "answer", "grows"),
    [(_THINKS, "<think>\nhm\n</think>\n\nhat", False), (_THINKS, "hat", True), (_INSTRUCT, "hat", True)],
    ids=["thoughts are dropped", "no thoughts", "Instruct-2507"],
)
def test_what_a_next_turn_shares_with_the_last(
    with_template: Callable[[str], Path], name: str, answer: str, grows: bool
) -> None:
    """Found again is what is equal from the first token on; the answers are those of a cold cache."""
    first: Messages = [{"role": "user", "content": "the cat and the hat?"}]
    second: Messages = [
        *first,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "and the thin one?"},
    ]
    path = with_template(name)
    before = f"{_rendered(name, first)}{answer}<|im_end|>\n"
    after = _rendered(name, second)
    assert after.startswith(before) == grows
    options: dict[str, Any] = {"dtype": "float32", "block_size": _BLOCK, "kv_cache_memory_gb": 0.01}
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    with LLM(str(path), enable_prefix_caching=False, **options) as llm:
        cold = llm.chat(second, params)[0].outputs[0].token_ids
    with LLM(str(path), **options) as llm:
        encode = llm.get_tokenizer().encode
        computed, asked = (encode(text, add_special_tokens=False) for text in (before, after))
        llm.generate({"prompt_token_ids": computed}, SamplingParams(max_tokens=1))
        warm = llm.chat(second, params)[0].outputs[0].token_ids
        found = llm.plugin.get_compute_stats()["prefix_cache_hit_tokens"]
    pairs = zip(computed, asked, strict=False)
    shared = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(computed))
    assert found == shared // _BLOCK * _BLOCK > 0
    assert (shared == len(computed)) == grows
    assert warm == cold
