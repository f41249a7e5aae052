"""Sizes beyond which images are refused before they are decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageLimits:
    """Of one request.

    max_images  how many
    max_bytes   of one image's file
    max_pixels  of one image, all of which are decoded into 3 bytes each
    max_side    pixels along either side
    max_total   pixels of all images together
    """

    max_images: int = 16
    max_bytes: int = 20_000_000
    max_pixels: int = 40_000_000
    max_side: int = 32_768
    max_total: int = 160_000_000


DEFAULT_LIMITS = ImageLimits()
