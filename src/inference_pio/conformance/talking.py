"""C14: what a plugin's chat format says about answers, tried on what its chat templates write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inference_pio.conformance.subject import Subject
from inference_pio.conformance.tiny_tokenizer import END_OF_TURN, EOS, write_tokenizer
from inference_pio.plugin.facts import ChatFormat
from inference_pio.text.chat import ChatTemplate
from inference_pio.text.reading import AnswerReader, gathered
from inference_pio.text.tokenizer import Tokenizer

_TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "write_file",
            "description": "Write a file.",
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "text": {"type": "string"},
                    "mode": {"type": "integer"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["path", "text"],
            },
        },
    },
)
_ARGUMENTS: tuple[Mapping[str, Any], ...] = (
    {"path": "a/é.py", "text": 'print("{<}>")\n\n# </tool_call> 5', "mode": 420, "tags": ["x", "</a>"]},
    {"path": "5", "text": ""},
)
_THOUGHTS, _CONTENT = "The file is\nmissing.", "I write it."
_ASKED = {"role": "user", "content": "Write it."}


class _Talk:
    """One template with the format that the plugin states for it."""

    def __init__(self, subject: Subject, name: str, source: str) -> None:
        directory = subject.workdir / f"talk-{subject.case.name}-{name}"
        directory.mkdir(exist_ok=True)
        write_tokenizer(directory, source)
        plugin = subject.plugin()
        config = plugin.read_config(subject.case.tiny[subject.case.typical], "")
        self.name = name
        self.format: ChatFormat = plugin.chat_format(config)
        self.tokenizer = Tokenizer.from_directory(directory)
        self.template = ChatTemplate(self.tokenizer, directory)
        self.ends = (*self.format.end_of_turn, END_OF_TURN, EOS)

    @property
    def thinks(self) -> bool:
        """Whether the template knows thoughts as the format marks them."""
        marks = self.format.reasoning
        return marks is not None and marks.end in (self.tokenizer.chat_template or "")

    def render(self, messages: Sequence[Mapping[str, Any]], prompt: bool, **options: Any) -> str:
        tools = options.pop("tools", None)
        variables = {**self.format.template_variables, **options}
        return self.template.render(messages, add_generation_prompt=prompt, tools=tools, variables=variables)

    def answered(
        self, answer: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[str, str]:
        """(the prompt, what the model would have written for the template to write it again like this)."""
        prompt = self.render([_ASKED], True, tools=tools)
        whole = self.render([_ASKED, answer], False, tools=tools)
        assert whole.startswith(prompt), f"{self.name}: {whole!r} does not begin with the prompt {prompt!r}"
        text = whole[len(prompt) :]
        return prompt, text[: min([text.find(end) for end in self.ends if end in text], default=len(text))]


def check_answers_are_read(subject: Subject) -> None:
    """What the chat templates write for thoughts and tool calls is what the plugin's chat format reads.

    A template that does not know one of them writes nothing there to read.
    """
    for name, source in subject.case.chat.items():
        talk = _Talk(subject, name, source)
        knows_tools = "tools" in talk.template.reads
        reader = AnswerReader(talk.format, talk.tokenizer, _TOOLS if knows_tools else None)
        assert talk.thinks or "reasoning_content" not in source, (
            f"{name}: the template writes thoughts, and chat_format.reasoning states no markers that it knows"
        )
        assert not knows_tools or reader.finds_calls, (
            f"{name}: the template shows the model tools, and no syntax of chat_format.tool_calls "
            f"{talk.format.tool_calls} is one that it writes"
        )
        answer: dict[str, Any] = {"role": "assistant", "content": _CONTENT}
        if talk.thinks:
            answer["reasoning_content"] = _THOUGHTS
        _check_read(talk, reader, answer, None)
        if knows_tools:
            calls = [_call(index, arguments) for index, arguments in enumerate(_ARGUMENTS)]
            _check_read(talk, reader, {**answer, "tool_calls": calls}, _TOOLS)
            _check_read(talk, reader, {**answer, "content": "", "tool_calls": calls[:1]}, _TOOLS)


def check_earlier_turns(subject: Subject) -> None:
    """A next turn's prompt begins with as much of this one as the plugin's chat format says."""
    for name, source in subject.case.chat.items():
        talk = _Talk(subject, name, source)
        answer: dict[str, Any] = {"role": "assistant", "content": _CONTENT}
        _check_grows(talk, answer)
        marks = talk.format.reasoning
        if marks is None or not talk.thinks:
            continue
        answer["reasoning_content"] = _THOUGHTS
        later = talk.render([_ASKED, answer, _ASKED], True)
        assert (_THOUGHTS not in later) == marks.dropped, (
            f"{name}: the format says dropped={marks.dropped} of earlier thoughts, and the next prompt is {later!r}"
        )
        if marks.kept_with:
            _check_grows(talk, answer, **marks.kept_with)


def check_system_role(subject: Subject) -> None:
    """A system message has a turn of its own, or stands in the user's, as the plugin's chat format says.

    Models are also given templates of other families; one that is as stated is enough.
    """
    system = {"role": "system", "content": "Be brief."}
    together = {"role": "user", "content": f"{system['content']}\n\n{_ASKED['content']}"}
    talks = {name: _Talk(subject, name, source) for name, source in subject.case.chat.items()}
    turns = {
        name: talk.render([system, _ASKED], True) != talk.render([together], True)
        for name, talk in talks.items()
    }
    for stated in {talk.format.system_role for talk in talks.values()}:
        assert stated in turns.values(), f"the format says system_role={stated}, the templates {turns}"


def _check_grows(talk: _Talk, answer: Mapping[str, Any], **options: Any) -> None:
    first = talk.render([_ASKED, answer], False, **options)
    later = talk.render([_ASKED, answer, _ASKED], True, **options)
    marks = talk.format.reasoning
    if talk.thinks and marks is not None and "reasoning_content" not in answer:
        # Such templates write empty thoughts into the last answer only.
        first, later = (_without_thoughts(text, marks.start, marks.end) for text in (first, later))
    assert later.startswith(first), f"{talk.name}: {later!r} does not begin with the last turn {first!r}"


def _without_thoughts(text: str, start: str, end: str) -> str:
    return "".join(text.replace(start, "").replace(end, "").split())


def _check_read(
    talk: _Talk, reader: AnswerReader, answer: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] | None
) -> None:
    prompt, text = talk.answered(answer, tools)
    whole = reader.parser(prompt)
    read = gathered([*whole.feed(text), *whole.finish()])
    single = reader.parser(prompt)
    events = [event for character in text for event in single.feed(character)]
    pieces = gathered([*events, *single.finish()])
    where = f"{talk.name}: of {text!r}"
    for thoughts, content, calls in (read, pieces):
        assert thoughts == answer.get("reasoning_content"), f"{where} the thoughts read are {thoughts!r}"
        found = [(call.function.name, json.loads(call.function.arguments)) for call in calls or ()]
        wanted = [
            (call["function"]["name"], call["function"]["arguments"]) for call in answer.get("tool_calls", ())
        ]
        assert found == wanted, f"{where} the calls read are {found!r}, not {wanted!r}"
        if _CONTENT in text:
            assert content.strip() == answer["content"], f"{where} the content read is {content!r}"


def _call(index: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": "write_file", "arguments": dict(arguments)}
    return {"id": f"abcdefgh{index}", "type": "function", "function": function}
