"""The spellings of a prompt that callers use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference_pio.errors import UsageError, shown
from inference_pio.plugin.media import ImageSource
from inference_pio.plugin.runtime import EncodedPrompt, ImagePrompt, RuntimePrompt

Prompt = str | Mapping[str, Any] | EncodedPrompt


def plain_prompt(prompt: Prompt) -> RuntimePrompt:
    """A text or token ids with their images, out of any spelling of a prompt."""
    if isinstance(prompt, (str, EncodedPrompt)):
        return prompt
    if isinstance(prompt, Mapping):
        if isinstance(ids := prompt.get("prompt_token_ids"), Sequence) and not isinstance(ids, str):
            return _with_images(ids, prompt)
        if isinstance(text := prompt.get("prompt"), str):
            return _with_images(text, prompt)
    raise UsageError(
        f"a prompt is a text, {{'prompt': …}} or {{'prompt_token_ids': […]}}, got {shown(prompt)}"
    )


def _with_images(
    written: str | Sequence[int], prompt: Mapping[str, Any]
) -> str | Sequence[int] | ImagePrompt:
    data = prompt.get("multi_modal_data")
    if data is None:
        return written
    if not isinstance(data, Mapping) or set(data) != {"image"}:
        names = ", ".join(map(repr, data)) if isinstance(data, Mapping) else type(data).__name__
        raise UsageError(f"multi_modal_data must be {{'image': …}}, got {names[:80]}")
    images = data["image"]
    many = images if isinstance(images, (list, tuple)) else [images]
    where = "multi_modal_data.image"
    return ImagePrompt(
        written, tuple(ImageSource(f"{where}[{index}]", image) for index, image in enumerate(many))
    )
