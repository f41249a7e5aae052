"""Images on their way through the engine, as data that knows neither files nor pixels' meaning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
    grid: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class MediaRows:
    """What images put into one step: M rows of it take features in place of token embeddings.

    rows      [M] int64, ascending
    features  [M, F] as the model's `encode_media` gave them; F is the model's own affair
    """

    rows: Tensor
    features: Tensor
