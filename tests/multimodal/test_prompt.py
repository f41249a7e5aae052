"""Placeholders and images: as many of one as of the other, in order, and the digest that tells images apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from inference_pio.errors import ContextLengthError, ImageError, PluginError, UsageError
from inference_pio.multimodal.limits import DEFAULT_LIMITS
from inference_pio.multimodal.prompt import fill_placeholders
from inference_pio.plugin.media import ImageSource
from support.images import FILES, gradient, png_of, saved
from support.seeing import PLACEHOLDER, PixelProcessor, picture, prompt_of

P = PLACEHOLDER


def fill(token_ids: Any, *images: Any, max_tokens: int = 1000, processor: Any = None, **limits: int) -> Any:
    sources = [ImageSource(f"image {index}", image) for index, image in enumerate(images)]
    return fill_placeholders(
        token_ids,
        sources,
        processor or PixelProcessor(),
        max_tokens=max_tokens,
        limits=replace(DEFAULT_LIMITS, **limits),
    )


def test_each_placeholder_becomes_as_many_as_its_image_has_tokens() -> None:
    ids, media = fill([1, P, 2, P, P, 3], picture(2, 3, 0), picture(1, 1, 1), picture(1, 2, 2))
    assert ids == [1, *[P] * 6, 2, P, P, P, 3]
    assert [(item.start, item.length, item.grid) for item in media.items] == [
        (1, 6, (1, 2, 3)),
        (8, 1, (1, 1, 1)),
        (9, 2, (1, 1, 2)),
    ]
    assert media.rope_positions.shape == (3, 12)
    assert media.rope_delta == int(media.rope_positions.max()) + 1 - 12
    assert media.items[0].pixels.shape == (6, 3)


def test_a_text_is_left_as_it_is() -> None:
    ids = [1, 2, 3]
    assert fill(ids) == (ids, None)
    for odd in ([[1, P], [2]], ["a", None], [1.5]):  # the engine says what is wrong with these
        assert fill(odd) == (odd, None)


def test_equal_images_have_equal_digests_and_others_have_not() -> None:
    data = saved(gradient(), "PNG")
    again = saved(gradient(), "BMP")

    def digest(image: bytes) -> bytes:
        _, media = prompt_of(image)
        assert media is not None
        return media.items[0].digest

    pixels = gradient()
    pixels.putpixel((3, 4), (0, 0, 0))
    other = saved(pixels, "PNG")
    assert digest(data) == digest(again)
    turned = saved(gradient().transpose(Image.Transpose.ROTATE_180), "PNG")
    assert len({digest(data), digest(other), digest(turned)}) == 3
    assert len(digest(data)) == 32


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [
        ([1, 2], 1, r"the prompt has 0 places for images \(token 40\) and 1 images were given"),
        ([1, P, 2], 0, "has 1 places for images .* and 0 images"),
        ([P, P], 1, "has 2 places for images .* and 1 images"),
        ([P] * 17, 17, "17 images in one request, and 16 are allowed"),
    ],
)
def test_numbers_that_differ(ids: list[int], count: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fill(ids, *[FILES["PNG"]] * count)


@pytest.mark.usefixtures("never_decodes")
def test_all_headers_are_read_before_the_first_image_is_decoded() -> None:
    with pytest.raises(ImageError, match=r"^image 1: 65,535 × 65,535 pixels: a side has"):
        fill([P, P], FILES["PNG"], png_of(65_535, 65_535))
    with pytest.raises(
        ImageError, match=r"^image 2: with it the request's images have 720 pixels, more than 500"
    ):
        fill([P, P, P], *[FILES["PNG"]] * 3, max_total=500)


def test_a_prompt_that_does_not_fit_is_told_before_the_next_image_is_decoded() -> None:
    prepared = []

    class Counting(PixelProcessor):
        def prepare(self, rgb: torch.Tensor) -> Any:
            prepared.append(rgb.shape)
            return super().prepare(rgb)

    images = [picture(4, 5, 0)] * 3
    with pytest.raises(
        ContextLengthError,
        match=r"^the prompt has 42 tokens with image 1, which alone has 20, and at most 41 fit: scale the image down",
    ):
        fill([1, P, P, P], *images, max_tokens=42, processor=Counting())
    assert len(prepared) == 2
    assert len(fill([1, P, P], *images[:2], max_tokens=42)[0]) == 41


def test_what_a_processor_says_is_told_of_its_image() -> None:
    class Refusing(PixelProcessor):
        def prepare(self, rgb: torch.Tensor) -> Any:
            raise UsageError(f"{rgb.shape[1]} columns are too many")

    class Wrong(PixelProcessor):
        def rope_positions(self, token_ids: Any, media: Any) -> Any:
            positions, delta = super().rope_positions(token_ids, media)
            return positions[:, 1:], delta

    with pytest.raises(ImageError, match=r"^image 0: 20 columns are too many$"):
        fill([P], FILES["PNG"], processor=Refusing())
    with pytest.raises(
        PluginError, match=r"rope_positions gave torch.int64 \(3, 239\), expected torch.int64 \(3, 240\)"
    ):
        fill([P], FILES["PNG"], processor=Wrong())
