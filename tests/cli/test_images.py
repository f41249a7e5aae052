"""`--image` and `/image` give what the Python interface gives to the same conversation."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from support.vision_model import BLUE, RED, VisionReference, write_vision_model

OPTIONS = ("--temperature", 0, "--repetition-penalty", 1, "--dtype", "float32", "--max-tokens", 8)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> VisionReference:
    folder = tmp_path_factory.mktemp("seeing")
    (folder / "red.png").write_bytes(RED)
    (folder / "blue.jpg").write_bytes(BLUE)
    return write_vision_model(folder)


@pytest.fixture(scope="module")
def said(seeing: VisionReference) -> dict[str, str]:
    red, blue = ({"type": "image", "image": image} for image in (RED, BLUE))
    question = {"type": "text", "text": "what?"}
    with LLM(str(seeing.path), dtype="float32") as llm:

        def say(*turns: Any) -> str:
            roles = ["user" if index % 2 == 0 else "assistant" for index in range(len(turns))]
            messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]
            return llm.chat(messages, SamplingParams(temperature=0, max_tokens=8))[0].outputs[0].text

        first = say([red, question])
        return {
            "both": say([red, blue, question]),
            "red": first,
            "red, then blue": say([red, question], first, [blue, question]),
        }


def test_run(cli: Any, seeing: VisionReference, said: dict[str, str]) -> None:
    red, blue = seeing.path / "red.png", seeing.path / "blue.jpg"
    done = cli("run", seeing.path, "what?", "--image", red, "--image", blue, "--json", *OPTIONS)
    assert done.code == 0, done
    answer = json.loads(done.out)
    assert answer["text"] == said["both"] != said["red"]
    assert answer["usage"]["prompt_tokens"] > 128
    cli("run", seeing.path, "what?", "--image", "no.png", *OPTIONS).complains(
        2, "messages[0].content[0]: 'no.png' cannot be opened: No such file or directory"
    )


def test_chat(cli: Any, seeing: VisionReference, said: dict[str, str]) -> None:
    lines = [f"/image {seeing.path / 'red.png'}", "what?", "/image no.png", "/image"]
    lines += [f"/image {seeing.path / 'blue.jpg'}", "what?"]
    done = cli("chat", seeing.path, *OPTIONS, stdin="".join(f"{line}\n" for line in lines).encode())
    assert done.code == 0, done
    assert done.out == f"{said['red']}\n{said['red, then blue']}\n"
    assert "(error: image: 'no.png' cannot be opened: No such file or directory)" in done.err
    assert "(error: image: '.' is not a regular file)" in done.err
    assert done.err.count("(1 before the next message)") == 2


def test_the_oldest_images_go_where_the_context_is_full(cli: Any, seeing: VisionReference) -> None:
    four = f"/image {seeing.path / 'red.png'}\n" * 4
    lines = f"{four}what?\n{four}what?\n{four * 3}what?\nand without?\n"
    done = cli("chat", seeing.path, *OPTIONS, stdin=lines.encode())
    assert done.code == 0, done
    assert done.err.count("the oldest 2 messages were dropped") == 1
    assert (
        len(re.findall(r"\(error: the prompt has \d+ tokens with messages\[0\].content\[\d+\]", done.err))
        == 1
    )
