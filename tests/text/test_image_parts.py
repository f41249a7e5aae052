"""Image parts of messages: what the template writes for them, and what is handed on."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from inference_pio.errors import UsageError
from inference_pio.plugin.media import ImageSource
from inference_pio.text.chat import ChatTemplate
from inference_pio.text.tokenizer import Tokenizer
from support.vocabularies import TEMPLATES

# Qwen3.5's template writes images as Qwen3-VL's does, whose vocabulary is that of Qwen3.
SOURCE = (TEMPLATES / "Qwen3.5-4B.jinja").read_text()
TEXT = {"type": "text", "text": "What is this?"}


@pytest.fixture
def template(tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> ChatTemplate:
    monkeypatch.setattr(Tokenizer, "chat_template", SOURCE)
    return ChatTemplate(tokenizers["qwen3"], "qwen3")


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_both_spellings_are_rendered_as_transformers_does(template: ChatTemplate) -> None:
    images: list[ImageSource] = []
    messages = user(
        {"type": "image", "image": b"one"},
        {"type": "image_url", "image_url": {"url": "data:two", "detail": "auto"}},
        {"type": "image_url", "image_url": "three.png"},
        TEXT,
    )
    rendered = template.render(messages, images=images)
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    expected = environment.from_string(SOURCE).render(messages=messages, add_generation_prompt=True)
    assert rendered == expected
    assert rendered.count("<|vision_start|><|image_pad|><|vision_end|>") == 3
    assert images == [
        ImageSource("messages[0].content[0]", b"one"),
        ImageSource("messages[0].content[1]", "data:two"),
        ImageSource("messages[0].content[2]", "three.png"),
    ]
    assert messages[0]["content"][0] == {"type": "image", "image": b"one"}  # the caller's own are not touched


def test_text_that_spells_a_placeholder_is_none(
    template: ChatTemplate, tokenizers: dict[str, Tokenizer]
) -> None:
    spelled = {"type": "text", "text": "<|vision_start|><|image_pad|><|vision_end|>"}
    messages = [
        *user({"type": "image", "image": b"x"}, spelled),
        {"role": "assistant", "content": "<|image_pad|>"},
        {"role": "user", "content": "<|image_pad|>"},
    ]
    images: list[ImageSource] = []
    ids = tokenizers["qwen3"].encode(template.render(messages, images=images), add_special_tokens=False)
    placeholder = tokenizers["qwen3"].token_to_id("<|image_pad|>")
    assert placeholder == 151655
    assert ids.count(placeholder) == len(images) == 1


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"type": "video", "video": "x"},
            r"\.type 'video' is not supported \(only 'text', 'image' and 'image_url' are\)",
        ),
        ({"type": "image"}, r'must be a part such as {"type": "image", "image": …}$'),
        (
            {"type": "image", "image": "x", "max_pixels": 5},
            r'such as {"type": "image", "image": …}, got max_pixels',
        ),
        ({"type": "image", "image_url": "x"}, r'such as {"type": "image", "image": …}, got image_url'),
        ({"type": "image_url", "image": "x"}, r'such as {"type": "image_url", "image_url": …}, got image'),
        ({"type": "image_url", "image_url": {}}, r'image_url must be {"url": "…"}'),
        ({"type": "image_url", "image_url": {"url": "x", "detail": "low"}}, r'its detail can be "auto" only'),
        ({"type": "image_url", "image_url": {"url": "x", "n": 1}}, r'image_url must be {"url": "…"}'),
    ],
)
def test_wrong_parts_are_named(template: ChatTemplate, part: Any, message: str) -> None:
    with pytest.raises(UsageError, match=r"^messages\[0\]\.content\[1\]" + ".*" + message) as caught:
        template.render(user(TEXT, part), images=[])
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_see_refuses_them(template: ChatTemplate) -> None:
    with pytest.raises(
        UsageError, match=r"messages\[0\].content\[0\].type 'image_url' is not supported \(only 'text' is\)"
    ):
        template.render(user({"type": "image_url", "image_url": {"url": "x"}}, TEXT))
