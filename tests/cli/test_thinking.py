"""What a model thinks before it answers: dimmed on a terminal, left out of pipes, a field of its own in JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.scripted import write_scripted

WORDS = ("<think>", "\nhm \x1b[2J\n", "</think>", "\n\nHi \x1b!", "\n there")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPTIONS = ("--temperature", 0, "--repetition-penalty", 1, "--dtype", "float32", "--max-tokens", 30, "--quiet")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinks")
    return write_scripted(folder, WORDS, {"<think>", "</think>"}, TEMPLATE, last="\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _self: True)


def test_a_pipe_gets_the_answer_alone(cli: Any, model: Path) -> None:
    assert cli("run", model, "a", *OPTIONS).out == "Hi \x1b!\n there\n"
    assert cli("chat", model, *OPTIONS, stdin=b"a\nb\n").out == "Hi \x1b!\n there\n" * 2


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("verb", ["run", "chat"])
def test_a_terminal_shows_thoughts_dimmed_and_cannot_be_steered(cli: Any, model: Path, verb: str) -> None:
    typed = {"stdin": b"a\n"}
    arguments = (verb, model, "a") if verb == "run" else (verb, model)
    answer = "Hi \ufffd!\n there\n"
    assert cli(*arguments, *OPTIONS, **typed).out == f"\x1b[2mhm \ufffd[2J\x1b[0m\n\n{answer}"
    assert cli(*arguments, *OPTIONS, "--hide-thinking", **typed).out == answer


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("setting", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colours_nothing_is_dimmed(
    cli: Any, model: Path, setting: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*setting)
    assert cli("run", model, "a", *OPTIONS).out == "hm \ufffd[2J\n\nHi \ufffd!\n there\n"


def test_json_has_thoughts_beside_the_text(cli: Any, model: Path) -> None:
    shown = json.loads(cli("run", model, "a", *OPTIONS, "--json").out)
    assert (shown["reasoning"], shown["text"]) == ("hm \x1b[2J", "Hi \x1b!\n there")


def test_raw_text_is_not_told_apart(cli: Any, model: Path) -> None:
    assert cli("run", model, "--raw", "a\n", *OPTIONS).out == f"{WORDS[1]}{''.join(WORDS[3:])}\n"


def test_thoughts_go_back_to_the_template(cli: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they stay in later prompts is for the template to say; this one keeps them."""
    from inference_pio import LLM

    prompts = []
    before = LLM.stream_chat
    monkeypatch.setattr(
        LLM,
        "stream_chat",
        lambda self, prompt, *rest: prompts.append(prompt.text) or before(self, prompt, *rest),
    )
    cli("chat", model, *OPTIONS, stdin=b"a\nb\n")
    assert "assistant\n<think>hm \x1b[2J</think>Hi \x1b!\n there<|im_end|>" in prompts[1]
