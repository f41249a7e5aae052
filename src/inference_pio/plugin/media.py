"""Images on their way through the engine, as data that knows neither files nor pixels' meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

Grid = tuple[int, int, int]
"""Patches along time, height and width."""


@dataclass(frozen=True)
class ImageSource:
    """An image as the caller gave it: a path, bytes of a file, a data URL or an image of Pillow's; unread so far.

    where  names it in errors, such as `messages[0].content[1]`
    """

    where: str
    source: Any


@dataclass(frozen=True, eq=False)
class MediaItem:
    """One image, ready for the model's encoder, and where its features go.

    start, length  positions of the prompt that it fills: one token each, all of one placeholder id
    digest         of the decoded image, its size and how it was cut: what tells its keys and values from another's
    pixels         [patches, C * P * P] float32, one row per patch in the order that the encoder wants
    grid           patches along time, height and width
    """

    start: int
    length: int
    digest: bytes
    pixels: Tensor
    grid: Grid


@dataclass(frozen=True, eq=False)
class PromptMedia:
    """The images of one prompt of P tokens.

    items           by position; no two overlap
    rope_positions  [3, P] int64, time, height and width of each token
    rope_delta      a generated token at position p of the sequence has p + rope_delta on all three axes
    """

    items: tuple[MediaItem, ...]
    rope_positions: Tensor
    rope_delta: int


@dataclass(frozen=True, eq=False)
class MediaRows:
    """What images put into one step: M rows of it take features in place of token embeddings.

    rows      [M] int64, ascending
    features  [M, F] as the model's `encode_media` gave them; F is the model's own affair
    """

    rows: Tensor
    features: Tensor


class MediaProcessor(Protocol):
    """How one model wants its images: what `ModelPlugin.media_processor` gives.

    placeholder  id of the token that stands for an image in a prompt, and fills the places of its features
    """

    placeholder: int

    def tokens(self, grid: Grid) -> int:
        """How many placeholders an image of this grid fills."""

    def prepare(self, rgb: Tensor) -> tuple[Tensor, Grid]:
        """Resize, normalise and cut an image.

        Args:
            rgb: [H, W, 3] uint8.

        Returns:
            `MediaItem.pixels` and the grid.

        Raises:
            UsageError: this model cannot look at an image of such a shape; says which it can.
        """

    def rope_positions(self, token_ids: Sequence[int], media: Sequence[MediaItem]) -> tuple[Tensor, int]:
        """`PromptMedia.rope_positions` and `rope_delta` of a prompt whose placeholders are filled in already."""

    def encoder_bytes(self, max_tokens: int, itemsize: int) -> int:
        """Memory that encoding one image takes at most beside the weights: with its features, and with the pixels of
        another that is made ready meanwhile.

        Args:
            max_tokens: of one image that fits the context; the processor's own largest image may have fewer.
            itemsize: bytes of one activation.
        """


@runtime_checkable
class EncodesMedia(Protocol):
    """A model that sees."""

    def encode_media(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Features [tokens, F] of images, one after the other.

        Args:
            pixels: [patches of all images, C * P * P] float32.
            grids: one for each image.
        """
