"""Where the tokens of a prompt with images stand: in time, height and width.

Texts count on in all three axes. An image's tokens stand at one time, the next one, and at the heights and widths of
their place in it, counted from that time on; what follows begins behind the largest of these, so that an image of
h × w tokens moves the text by max(h, w) and not by h · w ("Qwen2-VL", Wang et al. 2024, section 2.1; `get_rope_index`
of transformers' modeling_qwen3_vl).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_pio.errors import UsageError
from inference_pio.plugin.media import MediaItem


def rope_positions(
    token_ids: Sequence[int], media: Sequence[MediaItem], spatial_merge_size: int
) -> tuple[Tensor, int]:
    """Positions of a prompt of P tokens.

    Args:
        media: the images, in the order of the prompt.
        spatial_merge_size: patches along each side of a token.

    Returns:
        int64 [3, P], rows time, height and width; and what is added to a later token's place in the sequence to get
        its position, in all three axes: 0, or negative.

    Raises:
        UsageError: an image lies across another or the prompt's end, does not have the tokens of its grid, or is a
            video.
    """
    parts: list[Tensor] = []
    place = position = 0
    for item in media:
        _check(item, place, len(token_ids), spatial_merge_size)
        parts.append(_text(item.start - place, position))
        position += item.start - place
        parts.append(_image(item.grid, position, spatial_merge_size))
        place = item.start + item.length
        position += max(item.grid[1:]) // spatial_merge_size
    parts.append(_text(len(token_ids) - place, position))
    position += len(token_ids) - place
    return torch.cat(parts, dim=1), position - len(token_ids)


def _text(count: int, first: int) -> Tensor:
    return torch.arange(first, first + count).expand(3, count)


def _image(grid: tuple[int, int, int], first: int, merge: int) -> Tensor:
    sides = [torch.arange(patches // merge) for patches in grid[1:]]
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns]).flatten(1) + first


def _check(item: MediaItem, place: int, prompt: int, merge: int) -> None:
    time, height, width = item.grid
    if time != 1:
        raise UsageError(f"{time} patches along time are a video; this model's plugin reads images")
    tokens = (height // merge) * (width // merge)
    if height % merge or width % merge or item.length != tokens:
        raise UsageError(
            f"an image of {height} × {width} patches, {merge} × {merge} to a token, cannot fill {item.length} tokens"
        )
    if not place <= item.start <= prompt - item.length:
        raise UsageError(
            f"an image of {item.length} tokens cannot begin at token {item.start} of {prompt}: the last one ends at "
            f"{place}"
        )
