"""Where the prompt comes from: the command line, a file or standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_pio.errors import UsageError

STDIN = "-"


def read_prompt(argument: str | None, file: Path | None) -> str:
    """The prompt's text, not empty and valid Unicode.

    Raises:
        UsageError: two prompts or none, an unreadable file, or text that is not UTF-8.
    """
    if argument is not None and file is not None:
        raise UsageError("give either PROMPT or --prompt-file, not both")
    if file is not None:
        prompt = _read_file(file)
    elif argument is None or argument == STDIN:
        prompt = _read_stdin()
    else:
        prompt = _checked_argument(argument)
    if not prompt.strip():
        raise UsageError("the prompt is empty")
    return prompt


def with_images(text: str, images: Sequence[object]) -> str | list[dict[str, Any]]:
    """The content of a message: images come before the text that asks about them."""
    if not images:
        return text
    return [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]


def _read_file(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"--prompt-file {str(file)!r} cannot be read: {error.strerror or error}") from error
    return _decode(data, repr(str(file))).removesuffix("\n")


def _read_stdin() -> str:
    if sys.stdin is None:
        raise UsageError("no prompt: give PROMPT or --prompt-file; standard input is closed")
    if sys.stdin.isatty():
        print("Type the prompt, then Ctrl-D on a line of its own.", file=sys.stderr)
    return _decode(sys.stdin.buffer.read(), "standard input").removesuffix("\n")


def _checked_argument(argument: str) -> str:
    """Bytes of an argument that are no UTF-8 arrive as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"PROMPT is not UTF-8 at character {error.start}") from error
    return argument


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8 at byte {error.start}") from error
