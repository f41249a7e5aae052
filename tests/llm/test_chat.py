"""`LLM.chat` and `LLM.stream_chat`: thoughts, content and calls told apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.errors import UsageError
from inference_pio.outputs import ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from inference_pio.text.reading import gathered
from support.scripted import write_scripted
from support.vocabularies import TEMPLATES
from support.weather import TOOLS

CALL = '{"name": "get_weather", "arguments": {"city": "Bern"}}'
WORDS = ("<think>", "\nI need it.\n", "</think>", "\n\nI look.", "<tool_call>", CALL, "</tool_call>")
SPECIAL = frozenset({"<think>", "</think>", "<tool_call>", "</tool_call>"})
ASK = [{"role": "user", "content": "Weather?"}]
GREEDY = SamplingParams(temperature=0, max_tokens=40)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    template = (TEMPLATES / "Qwen-Qwen3-0.6B.jinja").read_text(encoding="utf-8")
    folder = write_scripted(tmp_path_factory.mktemp("scripted"), WORDS, SPECIAL, template, last="\n")
    with LLM(str(folder), dtype="float32", kv_cache_memory_gb=0.02) as model:
        yield model


def test_an_answer_is_told_apart(llm: LLM) -> None:
    answer = llm.chat(ASK, GREEDY, tools=TOOLS)[0].outputs[0]
    assert (answer.reasoning, answer.text, answer.finish_reason) == ("I need it.", "I look.", "stop")
    assert answer.tool_calls is not None
    (call,) = answer.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Bern"}
    assert call.id.startswith("call_")


def test_without_tools_a_call_is_text(llm: LLM) -> None:
    answer = llm.chat(ASK, GREEDY)[0].outputs[0]
    assert (answer.reasoning, answer.tool_calls) == ("I need it.", None)
    assert answer.text == f"I look.{CALL}", "its markers are special tokens that nobody reads"


def test_generate_leaves_the_text_as_it_is(llm: LLM) -> None:
    answer = llm.generate(llm.format_chat(ASK, tools=TOOLS), GREEDY)[0].outputs[0]
    assert answer.text == "".join(word for word in WORDS if word not in SPECIAL)
    assert (answer.reasoning, answer.tool_calls) == (None, None)
    shown = SamplingParams(temperature=0, max_tokens=40, skip_special_tokens=False)
    assert llm.generate(llm.format_chat(ASK), shown)[0].outputs[0].text == "".join(WORDS)


@pytest.mark.parametrize("formatted", [False, True])
def test_the_stream_says_the_same(llm: LLM, formatted: bool) -> None:
    whole = llm.chat(ASK, GREEDY, tools=TOOLS)[0].outputs[0]
    chunks = list(
        llm.stream_chat(llm.format_chat(ASK, tools=TOOLS) if formatted else ASK, GREEDY, tools=TOOLS)
    )
    events = [event for chunk in chunks for event in chunk.events]
    reasoning, text, calls = gathered(events)
    assert (reasoning, text) == (whole.reasoning, whole.text)
    assert calls is not None
    assert whole.tool_calls is not None
    assert [call.function for call in calls] == [call.function for call in whole.tool_calls]
    kinds = [ReasoningDelta, ContentDelta, ToolCallStart, ToolCallArguments, ToolCallEnd]
    assert [type(event) for event in events] == kinds
    assert "".join(chunk.text for chunk in chunks) == text
    assert "".join(chunk.reasoning for chunk in chunks) == reasoning
    assert [token_id for chunk in chunks for token_id in chunk.token_ids] == whole.token_ids
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]


def test_each_of_several_answers_has_its_own_parser(llm: LLM) -> None:
    params = SamplingParams(n=2, temperature=1e-3, max_tokens=40, seed=1)
    outputs = llm.chat(ASK, params, tools=TOOLS)[0].outputs
    chunks = list(llm.stream_chat(ASK, params, tools=TOOLS))
    for output in outputs:
        own = [event for chunk in chunks if chunk.index == output.index for event in chunk.events]
        assert gathered(own)[:2] == (output.reasoning, output.text) == ("I need it.", "I look.")


def test_an_answer_cut_off_within_a_call_shows_it(llm: LLM) -> None:
    answer = llm.chat(ASK, SamplingParams(temperature=0, max_tokens=5), tools=TOOLS)[0].outputs[0]
    assert (answer.finish_reason, answer.tool_calls, answer.text) == ("length", None, "I look.<tool_call>")


def test_an_answer_goes_back_into_the_conversation(llm: LLM) -> None:
    """What came out can be put in, and the template sees it as it was."""
    answer = llm.chat(ASK, GREEDY, tools=TOOLS)[0].outputs[0]
    assert answer.tool_calls is not None
    said = answer.as_message()
    result = {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": "3 °C"}
    prompt = llm.format_chat([*ASK, said, result], tools=TOOLS)
    before = llm.format_chat(ASK, tools=TOOLS)
    written = f"<think>\nI need it.\n</think>\n\nI look.\n<tool_call>\n{CALL}\n</tool_call>"
    assert prompt.startswith(f"{before}{written}<|im_end|>\n<|im_start|>user\n<tool_response>\n3 °C")


def test_leaving_cancels(llm: LLM, idle: Callable[[LLM], bool]) -> None:
    stream = llm.stream_chat(ASK, SamplingParams(temperature=0, max_tokens=200, ignore_eos=True))
    next(stream)
    stream.close()
    assert idle(llm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": [{"name": "a b"}]}, r"tools\[0\].name must be"),
        ({"chat_template_kwargs": {"tools": []}}, "'tools' is not the caller's to set"),
        ({"chat_template_kwargs": {"enable_thougt": True}}, "does not read 'enable_thougt'"),
    ],
)
def test_wrong_input_is_told_before_anything_runs(llm: LLM, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        llm.chat(ASK, GREEDY, **options)
    with pytest.raises(UsageError, match=message):
        llm.stream_chat(ASK, GREEDY, **options)


def test_tools_for_a_template_that_shows_none(tmp_path: Path) -> None:
    folder = write_scripted(tmp_path, ["Hi"], (), "{{ messages[0].content }}\n", last="\n")
    with (
        LLM(str(folder), dtype="float32", kv_cache_memory_gb=0.02) as llm,
        pytest.raises(UsageError, match="shows the model no tools"),
    ):
        llm.chat(ASK, GREEDY, tools=TOOLS)


def test_thoughts_that_the_prompt_has_opened(tmp_path: Path) -> None:
    template = "{{ messages[0].content }}<think>\n{# </think> #}"
    words = ["Hm", "</think>", "\n\nHi"]
    folder = write_scripted(tmp_path, words, ["</think>"], template, last="\n")
    with LLM(str(folder), dtype="float32", kv_cache_memory_gb=0.02) as llm:
        answer = llm.chat(ASK, GREEDY)[0].outputs[0]
        chunks = list(llm.stream_chat(ASK, GREEDY))
    assert (answer.reasoning, answer.text) == ("Hm", "Hi")
    assert "".join(chunk.reasoning for chunk in chunks) == "Hm"
