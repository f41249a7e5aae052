"""The messages of a conversation: checked, plain, and protected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inference_pio.errors import UsageError, shown
from inference_pio.plugin.media import ImageSource
from inference_pio.text.limits import MAX_TEXT, check_text
from inference_pio.text.tools import check_results, checked_tools, with_objects

MAX_MESSAGES = 2048
MAX_DEPTH = 64

_REASONING = ("reasoning_content", "thinking", "reasoning")

Protect = Callable[[str, str, bool], str]


def check_conversation(
    messages: object, add_generation_prompt: object, tools: object, options: object
) -> list[ImageSource]:
    """What there is to say of a conversation without its model; the images in it.

    Raises:
        UsageError: naming the place; whoever has the model would say the same.
    """
    images: list[ImageSource] = []
    check_switches(add_generation_prompt, options)
    if tools is not None:
        checked_tools(tools)
        plain(tools, "tools", _as_it_is)
    checked_messages(messages, _as_it_is, images)
    return images


def check_switches(add_generation_prompt: object, options: object) -> None:
    """Raises `UsageError` where they are not of their type."""
    if not isinstance(add_generation_prompt, bool):
        raise UsageError(f"add_generation_prompt must be True or False, got {shown(add_generation_prompt)}")
    if options is not None and not isinstance(options, Mapping):
        raise UsageError(f"chat_template_kwargs must be an object, got {shown(options)}")
    plain(options, "chat_template_kwargs", _as_it_is)


def checked_messages(
    messages: object, protect: Protect, images: list[ImageSource] | None = None
) -> list[dict[str, Any]]:
    """Copies made of plain JSON types, with every string passed through `protect(text, where, from_model)`.

    Args:
        images: takes the images of the messages, in order; a template sees `{"type": "image"}` in their place.
            None where the model does not see.

    Raises:
        UsageError: naming the place, such as `messages[3].role`.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise UsageError(f"messages must be a list of messages, got {shown(messages)}")
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise UsageError(f"messages: a conversation has 1 to {MAX_MESSAGES} messages, got {len(messages)}")
    length = 0

    def counted(text: str, where: str, from_model: bool) -> str:
        nonlocal length
        length += len(text)
        if length > MAX_TEXT:
            raise UsageError(f"messages: more than {MAX_TEXT} characters in all, at {where}")
        return protect(text, where, from_model)

    checked = [
        _message(message, f"messages[{index}]", counted, images) for index, message in enumerate(messages)
    ]
    check_results(messages)
    return checked


def plain(value: object, where: str, protect: Protect, from_model: bool = False, depth: int = 0) -> Any:
    """`value` rebuilt out of JSON types, so that a template meets no object with methods of its own."""
    if depth > MAX_DEPTH:
        raise UsageError(f"{where[:60]} …: nested more than {MAX_DEPTH} levels deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_text(value, where)
        return protect(str(value), where, from_model)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise UsageError(f"{where}: a whole number has 64 bits at most, got {shown(value)}")
        return int(value)
    if isinstance(value, Mapping):
        return {
            plain(_name(key, where), where, protect, from_model, depth + 1): plain(
                item, f"{where}.{key:.60}", protect, from_model, depth + 1
            )
            for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [
            plain(item, f"{where}[{index}]", protect, from_model, depth + 1)
            for index, item in enumerate(value)
        ]
    raise UsageError(f"{where}: must be text, a number, a list or an object, got {type(value).__name__}")


def _as_it_is(text: str, _where: str, _from_model: bool) -> str:
    return text


def _name(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise UsageError(f"{where}: names must be text, got {shown(key)}")
    return key


def _message(
    message: object, where: str, protect: Protect, images: list[ImageSource] | None
) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise UsageError(f"{where} must be an object with role and content, got {type(message).__name__}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise UsageError(f"{where}.role must be text such as 'user', got {shown(role)}")
    # An assistant may have nothing but called tools; a template writes anybody else's missing words as "None".
    if "content" in message or role != "assistant":
        content = _content(message.get("content"), f"{where}.content", images, may_lack=role == "assistant")
        message = {**message, "content": content}
    if role == "assistant":
        message = with_objects(message, where)
    # What a model wrote may hold markup of its own that templates look for (`<think>`), but no special token.
    result: dict[str, Any] = plain(message, where, protect, from_model=role == "assistant")
    return _with_reasoning(result)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    # Templates read a model's reasoning under different names; whichever the caller used, they find it.
    reasoning = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    return (
        message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}
    )


def _content(content: object, where: str, images: list[ImageSource] | None, *, may_lack: bool) -> object:
    """The content as the template gets it."""
    if isinstance(content, str) or (content is None and may_lack):
        return content
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)) or not content:
        raise UsageError(
            f"{where} must be text or a list of parts, got {shown(content) if content else 'none'}"
        )
    return [_part(part, f"{where}[{index}]", images) for index, part in enumerate(content)]


def _part(part: object, where: str, images: list[ImageSource] | None) -> Mapping[str, Any]:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise UsageError(f'{where} must be a part such as {{"type": "text", "text": "…"}}')
    kind = part["type"]
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise UsageError(f"{where}.text must be text, got {shown(part.get('text'))}")
        return part
    if images is None:
        raise UsageError(f"{where}.type {shown(kind)} is not supported (only 'text' is)")
    if kind not in ("image", "image_url"):
        raise UsageError(
            f"{where}.type {shown(kind)} is not supported (only 'text', 'image' and 'image_url' are)"
        )
    images.append(ImageSource(where, _image(part, where)))
    return {"type": "image"}


def _image(part: Mapping[str, Any], where: str) -> object:
    """What the part holds under the name of its type: an image itself, or OpenAI's object with a `url`."""
    kind = part["type"]
    unknown = sorted(str(name) for name in part if name not in ("type", kind))
    if kind not in part or unknown:
        found = f", got {', '.join(unknown)[:80]}" if unknown else ""
        raise UsageError(f'{where} must be a part such as {{"type": "{kind}", "{kind}": …}}{found}')
    source = part[kind]
    if kind == "image_url" and isinstance(source, Mapping):
        if source.get("detail", "auto") != "auto" or set(source) - {"url", "detail"} or "url" not in source:
            raise UsageError(
                f'{where}.image_url must be {{"url": "…"}}; its detail can be "auto" only: the model\'s own resolution'
            )
        return source["url"]
    return source
