"""Images on their way to a worker: decoded pixels and nothing else, in pieces ahead of what they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from inference_pio.children.frames import ProtocolError
from inference_pio.helper.process import HELPER
from inference_pio.multimodal.image import Pixels, open_images
from inference_pio.multimodal.limits import DEFAULT_LIMITS
from inference_pio.plugin.media import ImageSource
from inference_pio.plugin.runtime import EncodedPrompt
from inference_pio.worker.messages import Ask, FromParent, Generate, Picture, Rows

_AT_ONCE = 4 << 20
_IMAGE_PARTS = ("image", "image_url")
_RGB = 3


@dataclass(frozen=True)
class PicturedPrompt(EncodedPrompt):
    """A prompt with images for a worker, which makes them ready itself.

    given      text or token ids with one placeholder for each image
    formatted  by a chat template
    pictures   decoded
    """

    given: str | list[int] = ""
    formatted: bool = False
    pictures: tuple[Picture, ...] = ()


# At the parent's end ---------------------------------------------------------------------------------------------


def decoded(images: Sequence[ImageSource]) -> tuple[Picture, ...]:
    """Images of one request, decoded by the helper.

    Raises:
        ImageError, UsageError, UnavailableError: as for `open_images`, or a file is broken.
    """
    made = []
    for file in open_images(images):
        pixels = file.pixels(HELPER.rgb)
        made.append(Picture(file.where, pixels.height, pixels.width, bytes(pixels.rows)))
    return tuple(made)


def prompt_as_data(prompt: EncodedPrompt, token_ids: list[int]) -> dict[str, Any]:
    """Fields of Generate; `token_ids` are the prompt's own, as plain numbers."""
    if not isinstance(prompt, PicturedPrompt):
        return {"text": prompt.text, "token_ids": token_ids}
    field = "text" if isinstance(prompt.given, str) else "token_ids"
    return {field: prompt.given, "formatted": prompt.formatted, "images": list(prompt.pictures)}


def without_images(messages: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """A conversation whose images stay here, and those by their places, such as `messages[0].content[1]`."""
    kept: dict[str, Any] = {}
    return [_message(message, f"messages[{at}]", kept) for at, message in enumerate(messages)], kept


def in_pieces(message: FromParent) -> Iterator[FromParent]:
    """A message as it is sent: what its pictures show goes ahead."""
    if not isinstance(message, (Generate, Ask)) or not message.images:
        yield message
        return
    number = message.request if isinstance(message, Generate) else message.number
    for picture in message.images:
        for start in range(0, len(picture.rows), _AT_ONCE):
            yield Rows(number, picture.rows[start : start + _AT_ONCE])
    bare = [msgspec.structs.replace(picture, rows=b"") for picture in message.images]
    yield msgspec.structs.replace(message, images=bare)


def _message(message: Any, where: str, kept: dict[str, Any]) -> Any:
    if not isinstance(message, Mapping):
        return message
    content = message.get("content")
    if not isinstance(content, (list, tuple)):
        return dict(message)
    parts = [_part(part, f"{where}.content[{at}]", kept) for at, part in enumerate(content)]
    return {**message, "content": parts}


def _part(part: Any, where: str, kept: dict[str, Any]) -> Any:
    """A part without its image, otherwise as it was: what is wrong with it a worker says."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in _IMAGE_PARTS or kind not in part:
        return part
    source = part[kind]
    if kind == "image_url" and isinstance(source, Mapping):
        kept[where] = source.get("url")
        return {**part, kind: {name: None if name == "url" else value for name, value in source.items()}}
    kept[where] = source
    return {**part, kind: None}


# At the worker's -------------------------------------------------------------------------------------------------


class Album:
    """Pictures that have come, until what they belong to does."""

    def __init__(self) -> None:
        self._number, self._held = 0, bytearray()

    def add(self, rows: Rows) -> None:
        """
        Raises:
            ProtocolError: of another message than the last ones, or more than one may have.
        """
        if self._held and rows.number != self._number:
            raise ProtocolError(f"pictures of {rows.number} among those of {self._number}")
        self._number = rows.number
        self._held += rows.data
        if len(self._held) > _RGB * DEFAULT_LIMITS.max_total:
            raise ProtocolError(f"more than {DEFAULT_LIMITS.max_total:,} pixels in one message")

    def take(self, number: int, pictures: Sequence[Picture]) -> tuple[ImageSource, ...]:
        """The images of a message.

        Raises:
            ProtocolError: their bytes are not those that have come.
        """
        if any(min(picture.height, picture.width) < 1 or picture.rows for picture in pictures):
            raise ProtocolError("a picture without pixels, or with pixels of its own")
        sizes = [_RGB * picture.height * picture.width for picture in pictures]
        if sum(sizes) != len(self._held) or (sizes and number != self._number):
            raise ProtocolError(f"{len(self._held):,} bytes of pictures with {sum(sizes):,}")
        held, self._held = memoryview(self._held), bytearray()
        made, start = [], 0
        for picture, size in zip(pictures, sizes, strict=True):
            pixels = Pixels(picture.height, picture.width, held[start : start + size])
            made.append(ImageSource(picture.where, pixels))
            start += size
        return tuple(made)
