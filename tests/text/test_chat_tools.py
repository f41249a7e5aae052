"""Tools and thoughts through the real templates: rendered as Transformers does, and read back as they were."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from inference_pio.errors import UsageError
from inference_pio.plugin.facts import CallSyntax, ChatFormat, ReasoningFormat
from inference_pio.text.chat import ChatTemplate
from inference_pio.text.detokenizer import IncrementalDetokenizer
from inference_pio.text.reading import AnswerReader, checked_options, gathered
from inference_pio.text.tokenizer import Tokenizer
from support.htk import gguf_metadata
from support.vocabularies import TEMPLATES
from support.weather import TOOLS

DATA = Path(__file__).parents[1] / "data"
Message = dict[str, Any]

ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"city": "Zürich <b>", "days": 3, "units": "C", "hours": [1, 2], "extra": {"a": {"b": "}"}, "c": None}},
    {"city": "12", "hours": []},
    {},
)


def call(index: int) -> dict[str, Any]:
    function = {"name": "now" if not ARGUMENTS[index] else "get_weather", "arguments": ARGUMENTS[index]}
    return {"id": f"abcdefgh{index}", "type": "function", "function": function}


ASK: Message = {"role": "user", "content": "Weather?"}
CALLS: Message = {"role": "assistant", "content": "I look.", "tool_calls": [call(0), call(1)]}
RESULTS: list[Message] = [
    {"role": "tool", "content": '{"t": 3}', "tool_call_id": "abcdefgh0", "name": "get_weather"},
    {"role": "tool", "content": "<none>", "tool_call_id": "abcdefgh1", "name": "get_weather"},
]
CONVERSATIONS: dict[str, list[Message]] = {
    "calls": [ASK, CALLS],
    "calls alone": [ASK, {**CALLS, "content": ""}, *RESULTS],
    "results": [{"role": "system", "content": "Be brief."}, ASK, CALLS, *RESULTS],
    "answered": [ASK, CALLS, *RESULTS, {"role": "assistant", "content": "Cold."}, ASK],
    "thoughts": [
        ASK,
        {**CALLS, "reasoning_content": "I need\n\nit."},
        *RESULTS,
        {"role": "assistant", "content": "Cold.", "reasoning_content": "3 is cold."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "", "reasoning_content": "Hm", "tool_calls": [call(2)]},
        {"role": "tool", "content": "noon", "tool_call_id": "abcdefgh2", "name": "now"},
    ],
    "no arguments": [ASK, {"role": "assistant", "content": "", "tool_calls": [call(2)]}],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "Qwen-Qwen3-0.6B": {"enable_thinking": False},
    "GLM-4.7-Flash": {"enable_thinking": False, "clear_thinking": False},
    "GLM-4.6": {"enable_thinking": False},
}
SYNTAX: dict[str, CallSyntax] = {
    "Qwen-Qwen2.5-7B-Instruct": "hermes_json",
    "Qwen-Qwen3-0.6B": "hermes_json",
    "Qwen-QwQ-32B": "hermes_json",
    "Qwen3-Coder": "qwen3_coder_xml",
    "Qwen3.5-4B": "qwen3_coder_xml",
    "GLM-4.6": "glm_xml",
    "GLM-4.7-Flash": "glm_xml",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral_json",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral_json",
}
THINKS = {"Qwen-Qwen3-0.6B", "Qwen3.5-4B", "GLM-4.6", "GLM-4.7-Flash"}
ENDS = ("<|im_end|>", "</s>")


def tokenizer_with(vocabularies: dict[str, dict[str, Any]], source: Any) -> Tokenizer:
    metadata = {**vocabularies["stories"], "tokenizer.chat_template": source}
    return Tokenizer.from_gguf(metadata, Path("m.gguf"))


def source_of(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def theirs(source: str, messages: list[Message], **values: Any) -> str:
    rendered, _ = render_jinja_template(
        [copy.deepcopy(messages)], chat_template=source, bos_token="<s>", eos_token="</s>", **values
    )
    return str(rendered[0])


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", SYNTAX)
def test_conversations_with_tools_equal_transformers(
    name: str, conversation: str, vocabularies: dict[str, dict[str, Any]]
) -> None:
    source, messages = source_of(name), CONVERSATIONS[conversation]
    template = ChatTemplate(tokenizer_with(vocabularies, source), "m.gguf")
    for options in ({}, OPTIONS.get(name, {})):
        for prompt in (True, False):
            expected = theirs(source, messages, tools=TOOLS, add_generation_prompt=prompt, **options)
            assert (
                template.render(messages, tools=TOOLS, add_generation_prompt=prompt, variables=options)
                == expected
            )


@pytest.mark.parametrize("name", SYNTAX)
def test_arguments_may_come_as_text(name: str, vocabularies: dict[str, dict[str, Any]]) -> None:
    """OpenAI's clients send them so; templates need objects."""
    messages = copy.deepcopy(CONVERSATIONS["results"])
    for one in messages[2]["tool_calls"]:
        one["function"]["arguments"] = json.dumps(one["function"]["arguments"])
    template = ChatTemplate(tokenizer_with(vocabularies, source_of(name)), "m.gguf")
    assert template.render(messages, tools=TOOLS) == template.render(CONVERSATIONS["results"], tools=TOOLS)
    assert isinstance(messages[2]["tool_calls"][0]["function"]["arguments"], str), (
        "the caller's message is left alone"
    )


@pytest.mark.parametrize("calls", [(0,), (1, 0), (2,), ()], ids=str)
@pytest.mark.parametrize("content", ["I look.\nNow", ""])
@pytest.mark.parametrize("thoughts", ["Is it\n\n<tool_call>?", None])
@pytest.mark.parametrize("name", SYNTAX)
def test_what_a_template_writes_is_read_back(
    name: str,
    thoughts: str | None,
    content: str,
    calls: tuple[int, ...],
    vocabularies: dict[str, dict[str, Any]],
) -> None:
    thoughts = thoughts if name in THINKS else None
    if name.startswith("mistral") and calls:
        content = ""  # Nemo's template writes either
    if name.startswith("Mistral") and calls:
        content = ""
    answer: Message = {"role": "assistant", "content": content}
    if calls:
        answer["tool_calls"] = [call(index) for index in calls]
    if thoughts is not None:
        answer["reasoning_content"] = thoughts
    source = source_of(name)
    prompt = theirs(source, [ASK], tools=TOOLS, add_generation_prompt=True)
    whole = theirs(source, [ASK, answer], tools=TOOLS, add_generation_prompt=False)
    if name == "Qwen-QwQ-32B":
        prompt = prompt[
            : prompt.rindex("<think>")
        ]  # history has no thoughts; an answer would begin with some
    if name == "GLM-4.7-Flash" and thoughts is None:
        prompt = theirs(source, [ASK], tools=TOOLS, add_generation_prompt=True, enable_thinking=False)
    assert whole.startswith(prompt)
    text = whole[len(prompt) :]
    for end in ENDS:
        text = text.partition(end)[0]
    chat_format = ChatFormat(reasoning=ReasoningFormat(), tool_calls=(SYNTAX[name],))
    parser = AnswerReader(chat_format, tokenizer_with(vocabularies, source), TOOLS).parser(prompt)
    read_thoughts, read_content, read_calls = gathered(
        [event for character in text for event in parser.feed(character)] + parser.finish()
    )
    assert read_thoughts == thoughts
    assert read_content.strip() == content
    found = [(one.function.name, json.loads(one.function.arguments)) for one in read_calls or ()]
    wanted = [(one["function"]["name"], one["function"]["arguments"]) for one in answer.get("tool_calls", ())]
    assert found == wanted
    if name.startswith(("mistral", "Mistral")):
        assert [one.id for one in read_calls or ()] == [one["id"] for one in answer.get("tool_calls", ())]


@pytest.mark.parametrize(
    ("name", "options", "thinking"),
    [
        ("GLM-4.7-Flash", {}, True),
        ("GLM-4.7-Flash", {"enable_thinking": False}, False),
        ("GLM-4.6", {}, False),
        ("Qwen-Qwen3-0.6B", {}, False),
        ("Qwen-Qwen3-0.6B", {"enable_thinking": False}, False),
        ("Qwen-QwQ-32B", {"enable_thinking": True}, True),
        ("Qwen-QwQ-32B", {}, False),
        ("Qwen3.5-4B", {}, True),
    ],
)
def test_whether_the_prompt_opened_the_thoughts(
    name: str, options: dict[str, Any], thinking: bool, vocabularies: dict[str, dict[str, Any]]
) -> None:
    tokenizer = tokenizer_with(vocabularies, source_of(name))
    prompt = ChatTemplate(tokenizer, "m.gguf").render([ASK], variables=options)
    parser = AnswerReader(ChatFormat(reasoning=ReasoningFormat()), tokenizer, None).parser(prompt)
    thoughts, content, _ = gathered([*parser.feed("a"), *parser.finish()])
    assert (thoughts, content) == (("a", "") if thinking else (None, "a"))


def test_a_user_cannot_open_the_thoughts(tokenizers: dict[str, Tokenizer]) -> None:
    """Not even where the template writes nothing behind the user's text."""
    tokenizer = tokenizers["qwen3"]
    rendered = ChatTemplate(tokenizer, "qwen3").render(
        [{"role": "user", "content": "x<think>"}], add_generation_prompt=False
    )
    prompt = rendered[: rendered.index("think>") + len("think>")]
    parser = AnswerReader(ChatFormat(reasoning=ReasoningFormat()), tokenizer, None).parser(prompt)
    assert gathered([*parser.feed("a"), *parser.finish()]) == (None, "a", None)


def test_the_template_decides_what_is_looked_for(vocabularies: dict[str, dict[str, Any]]) -> None:
    both = ChatFormat(reasoning=ReasoningFormat(), tool_calls=("qwen3_coder_xml", "hermes_json"))
    xml = "<tool_call>\n<function=now>\n</function>\n</tool_call>"
    hermes = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'

    def read(name: str, text: str, tools: Any = TOOLS) -> tuple[str | None, str, bool]:
        parser = AnswerReader(both, tokenizer_with(vocabularies, source_of(name)), tools).parser("")
        thoughts, content, calls = gathered([*parser.feed(text), *parser.finish()])
        return thoughts, content, calls is not None

    assert read("Qwen3-Coder", xml) == (None, "", True)
    assert read("Qwen3-Coder", hermes) == (None, hermes, False)
    assert read("Qwen-Qwen3-0.6B", hermes) == (None, "", True)
    assert read("Qwen-Qwen3-0.6B", hermes, None) == (None, hermes, False)
    assert read("Qwen-Qwen3-0.6B", "<think>a</think>b") == ("a", "b", False)
    assert read("Qwen-Qwen2.5-7B-Instruct", "<think>a</think>b") == (None, "<think>a</think>b", False)
    assert read("microsoft-Phi-3.5-mini-instruct", hermes) == (None, hermes, False)


def test_markers_that_are_special_tokens_stay_in_the_text() -> None:
    """In GLM's vocabulary all of them are; whoever skips special tokens would skip them."""
    file = DATA / "tokenizers" / "glm-5.2.htk"
    metadata = {**gguf_metadata(file, pre="glm4"), "tokenizer.chat_template": source_of("GLM-4.7-Flash")}
    glm = Tokenizer.from_gguf(metadata, file)
    chat_format = ChatFormat(reasoning=ReasoningFormat(), tool_calls=("glm_xml",))
    reader = AnswerReader(chat_format, glm, TOOLS)
    assert len(reader.kept) == 8
    assert reader.kept <= glm.special_token_ids
    text = "Hm</think>Hi<tool_call>get_weather<arg_key>city</arg_key><arg_value>Bern</arg_value></tool_call>"
    ids = glm.encode(f"{text}<|observation|>", add_special_tokens=False)
    parser = reader.parser("<|assistant|><think>")
    stream = IncrementalDetokenizer(glm, kept=reader.kept)
    pieces = [stream.push([token_id]) for token_id in ids]
    assert "".join(pieces) == text, "other special tokens are left out"
    thoughts, content, calls = gathered(
        [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    )
    assert (thoughts, content) == ("Hm", "Hi")
    assert calls is not None
    assert json.loads(calls[0].function.arguments) == {"city": "Bern"}
    assert AnswerReader(chat_format, glm, None).kept < reader.kept


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("now", "tools must be a list of tools, got str"),
        ([], "tools: 1 to 128 tools or None, got 0"),
        ([{"name": f"f{index}"} for index in range(129)], "got 129"),
        (["now"], r"tools\[0\] must be an object"),
        ([{"name": "../x"}], r"tools\[0\].name must be 1 to 64 letters, digits, _ or -, got '../x'"),
        ([{"function": {"name": "f" * 65}}], r"tools\[0\].function.name must be"),
        ([{"function": "f"}], r"tools\[0\].function.name must be"),
        ([{"name": "f"}, {"name": "f"}], r"tools\[1\]: a tool called 'f' was given already"),
        ([{"name": "f", "parameters": []}], r"tools\[0\].parameters must be a JSON schema, got list"),
        (
            [{"name": "f", "description": "x" * 70_000}],
            r"tools\[0\] has 700\d\d bytes as JSON, more than 65536",
        ),
        ([{"name": "f", "x": object()}], r"tools\[0\] must be made of what JSON has"),
    ],
)
def test_wrong_tools_are_named(tools: Any, message: str, vocabularies: dict[str, dict[str, Any]]) -> None:
    template = ChatTemplate(tokenizer_with(vocabularies, "{{ tools }}"), "m.gguf")
    with pytest.raises(UsageError, match=message) as caught:
        template.render([ASK], tools=tools)
    assert "\n" not in str(caught.value)


def _calling(**changes: Any) -> Message:
    return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", **changes}}]}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "assistant", "tool_calls": "f"}], r"messages\[0\].tool_calls must be a list"),
        ([{"role": "assistant", "tool_calls": ["f"]}], r"messages\[0\].tool_calls\[0\] must be an object"),
        (
            [{"role": "assistant", "tool_calls": [{"function": 1}]}],
            r"tool_calls\[0\].function.name must be text",
        ),
        ([{"role": "assistant", "tool_calls": [{"id": 5, "name": "f"}]}], r"tool_calls\[0\].id must be text"),
        ([_calling(name="")], r"function.name must be text, got ''"),
        ([_calling(arguments="{")], r"messages\[0\].tool_calls\[0\].function.arguments is no JSON: "),
        ([_calling(arguments="[1]")], r"arguments must be an object or the JSON text of one, got list"),
        (
            [_calling(arguments='{"a": ' * 5000 + "1" + "}" * 5000)],
            r"arguments is no JSON: nested too deeply",
        ),
        ([_calling(arguments=None)], r"arguments must be an object"),
        ([{"role": "tool", "content": "x", "tool_call_id": 5}], r"messages\[0\].tool_call_id must be text"),
        (
            [ASK, CALLS, {"role": "tool", "content": "x", "tool_call_id": "other"}],
            r"messages\[2\].tool_call_id 'other' is the id of no call before it",
        ),
    ],
)
def test_wrong_calls_and_results_are_named(
    messages: list[Message], message: str, vocabularies: dict[str, dict[str, Any]]
) -> None:
    template = ChatTemplate(tokenizer_with(vocabularies, "{{ messages }}"), "m.gguf")
    with pytest.raises(UsageError, match=message) as caught:
        template.render(messages)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_thinking": "no"}, "enable_thinking must be bool, got 'no'"),
        ({"messages": []}, "'messages' is not the caller's to set"),
        ({"tokenize": True}, "'tokenize' is not the caller's to set"),
        ({"add_generation_prompt": "x"}, "'add_generation_prompt' is not the caller's to set"),
        ({"enable_thought": True}, r"does not read 'enable_thought' \(options: enable_thinking\)"),
        ({"date": "x" * 70_000}, "bytes as JSON, more than 65536"),
        ({"date": object()}, "made of what JSON has"),
    ],
)
def test_wrong_template_options_are_named(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked_options(options, {"enable_thinking": bool}, frozenset({"date", "messages", "tokenize"}))


def test_options_of_the_architecture_and_of_the_template_are_taken() -> None:
    given = {"enable_thinking": False, "date": "today"}
    assert checked_options(given, {"enable_thinking": bool}, frozenset({"date"})) == given
