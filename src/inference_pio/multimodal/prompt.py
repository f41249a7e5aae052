"""Images into a prompt: one placeholder token for each becomes as many as its features have."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference_pio.errors import ContextLengthError, ImageError, PluginError, UsageError
from inference_pio.multimodal.decoding import rgb
from inference_pio.multimodal.image import Decoder, ImageFile, open_images
from inference_pio.multimodal.limits import DEFAULT_LIMITS, ImageLimits
from inference_pio.plugin.media import Grid, ImageSource, MediaItem, MediaProcessor, PromptMedia


@dataclass(frozen=True)
class _Prepared:
    pixels: Tensor
    grid: Grid
    digest: bytes
    num_tokens: int


def fill_placeholders(
    token_ids: list[int],
    images: Sequence[ImageSource],
    processor: MediaProcessor,
    *,
    max_tokens: int,
    limits: ImageLimits = DEFAULT_LIMITS,
    decoder: Decoder = rgb,
) -> tuple[list[int], PromptMedia | None]:
    """The prompt with its placeholders filled, and its images; None where it has none.

    Args:
        token_ids: with one placeholder for each image, in the images' order.
        decoder: where files are decoded.
        max_tokens: what the context holds; more is refused before the next image is decoded.

    Raises:
        UsageError: images and placeholders differ in number.
        ImageError: an image cannot be used; nothing is decoded where the header of one of them gives that away.
        ContextLengthError: the prompt is longer than the context.
    """
    places = [at for at, token_id in enumerate(token_ids) if _is(token_id, processor.placeholder)]
    if len(places) != len(images):
        raise UsageError(
            f"the prompt has {len(places)} places for images (token {processor.placeholder}) and {len(images)} "
            "images were given: write the model's image placeholder once for each"
        )
    if not images:
        return token_ids, None
    filled: list[int] = []
    items: list[MediaItem] = []
    done, left = 0, len(token_ids)
    for place, file in zip(places, open_images(images, limits), strict=True):
        image = _prepared(file, processor, decoder)
        filled += token_ids[done:place]
        done, left = place + 1, len(token_ids) - place - 1
        items.append(MediaItem(len(filled), image.num_tokens, image.digest, image.pixels, image.grid))
        filled += [processor.placeholder] * image.num_tokens
        if len(filled) + left >= max_tokens:
            raise ContextLengthError(
                f"the prompt has {len(filled) + left} tokens with {file.where}, which alone has {image.num_tokens}, "
                f"and at most {max_tokens - 1} fit: scale the image down, or leave one out"
            )
    filled += token_ids[done:]
    rope_positions, delta = processor.rope_positions(filled, items)
    if rope_positions.shape != (3, len(filled)) or rope_positions.dtype != torch.int64:
        found = f"{rope_positions.dtype} {tuple(rope_positions.shape)}"
        raise PluginError(f"rope_positions gave {found}, expected torch.int64 (3, {len(filled)})")
    return filled, PromptMedia(tuple(items), rope_positions, delta)


def _is(token_id: object, placeholder: int) -> bool:
    # What is no number at all is told by the engine, with everything else that is wrong with token ids.
    return not isinstance(token_id, Sequence) and bool(token_id == placeholder)


def _prepared(file: ImageFile, processor: MediaProcessor, decoder: Decoder) -> _Prepared:
    given = file.decode(decoder)
    try:
        pixels, grid = processor.prepare(given)
    except UsageError as error:
        raise ImageError(file.where, str(error)) from error
    # The pixels that were given and how they were cut say what the encoder sees: sizes first, so that no two images
    # with the same bytes in rows of different length are one.
    sizes = f"{tuple(given.shape)} {tuple(pixels.shape)} {grid}".encode()
    digest = hashlib.blake2b(sizes, digest_size=32)
    digest.update(given.contiguous().numpy().data)
    return _Prepared(pixels, grid, digest.digest(), processor.tokens(grid))
