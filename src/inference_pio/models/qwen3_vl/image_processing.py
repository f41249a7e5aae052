"""From an image to patches: its size in whole tokens, its colours around zero, its patches token by token.

The reference is `Qwen2VLImageProcessorPil` of transformers 5.23, with the numbers of Qwen3-VL's
preprocessor_config.json. Resizing is Pillow's, bit for bit: its bicubic filter rounds to 8 bits between columns and
rows, which torch's in float32 does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_pio.config import ConfigReader
from inference_pio.errors import UnavailableError, UsageError
from inference_pio.models.qwen3_vl.config import VisionConfig
from inference_pio.models.qwen3_vl.rotary_embeddings.positions import rope_positions
from inference_pio.models.qwen3_vl.vision import encoder_bytes
from inference_pio.plugin.media import MediaItem

Grid = tuple[int, int, int]
_MEAN = _STD = 0.5
_LONGEST_RATIO = 200
_BICUBIC = 3  # Pillow's number of the filter
_MOST_PIXELS = 2**31 - 1
_IGNORED = {
    "image_processor_type": "the variants of Qwen2-VL's processor make the same pixels",
    "processor_class": "about the writer",
    "data_format": "the order of pixels in a batch of theirs",
    "default_to_square": "read by processors that crop",
}


@dataclass(frozen=True)
class ImageLimits:
    """How an image is cut, and how many pixels it has when it is.

    patch_size, merge_size  pixels along a side of a patch, patches along a side of a token
    temporal_patch_size     pictures of one patch; an image is that many equal ones
    min_pixels, max_pixels  an image outside of them is enlarged or reduced
    """

    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 256 * 256
    max_pixels: int = 4096 * 4096

    @classmethod
    def read(cls, raw: Mapping[str, Any], path: str, vision: VisionConfig) -> ImageLimits:
        """From a parsed preprocessor_config.json, of which what is null counts as not there.

        Raises:
            ModelFileError: it asks for other pixels than those made here, or contradicts the model's configuration.
        """
        stated = {key: value for key, value in raw.items() if value is not None}
        with ConfigReader(stated, path=path, ignored=_IGNORED) as read:
            for key, want in (
                ("patch_size", vision.patch_size),
                ("merge_size", vision.spatial_merge_size),
                ("temporal_patch_size", vision.temporal_patch_size),
            ):
                if (found := read.integer(key, default=want)) != want:
                    read.refuse(f"{found} is not the {want} of config.json's vision_config", where=key)
            _refuse_other_pixels(read)
            size = read.mapping("size")
            with ConfigReader(size, path=path, ignored={}) as edges:
                least = edges.integer("shortest_edge", default=cls.min_pixels)
                most = edges.integer("longest_edge", default=cls.max_pixels, high=_MOST_PIXELS)
            least = read.integer("min_pixels", default=least)
            most = read.integer("max_pixels", default=most, high=_MOST_PIXELS)
            limits = cls(
                vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size, least, most
            )
            if least > most or most < limits.factor**2:
                read.refuse(f"from {least} to {most} pixels leaves no image of whole tokens", where="size")
        return limits

    @property
    def factor(self) -> int:
        """Pixels along a side of a token."""
        return self.patch_size * self.merge_size


@dataclass
class ImageProcessor:
    """All that happens to an image in front of the model, and what the engine has to know of it.

    placeholder  the token id that stands for each token of an image
    limits       of what `prepare` makes; `dataclasses.replace` gives a processor with others
    vision       the tower that will see it
    """

    placeholder: int
    limits: ImageLimits
    vision: VisionConfig

    @classmethod
    def of(
        cls, image_token_id: int, vision: VisionConfig, stated: Mapping[str, Any], path: str
    ) -> ImageProcessor:
        """With the limits that a preprocessor_config.json states, those of the published models where it is silent."""
        return cls(image_token_id, ImageLimits.read(stated, path, vision), vision)

    def tokens(self, grid: Grid) -> int:
        """Tokens of an image of (time, height, width) patches."""
        return math.prod(grid) // self.limits.merge_size**2

    def prepare(self, rgb: Tensor) -> tuple[Tensor, Grid]:
        """`prepare_image` within this processor's limits."""
        return prepare_image(rgb, self.limits)

    def rope_positions(self, token_ids: Sequence[int], media: Sequence[MediaItem]) -> tuple[Tensor, int]:
        """Positions [3, P] of a prompt with images, and what is added to a later token's place to get its position."""
        return rope_positions(token_ids, media, self.limits.merge_size)

    def encoder_bytes(self, max_tokens: int, itemsize: int) -> int:
        """Memory that encoding one image takes at most beside the weights: the largest that `prepare` makes, or one of
        `max_tokens` where that is smaller. Meanwhile the pixels of the next one are made ready.
        """
        tokens = min(max_tokens, self.limits.max_pixels // self.limits.factor**2)
        patches = tokens * self.limits.merge_size**2
        next_pixels = patches * self.vision.patch_values * torch.float32.itemsize
        return encoder_bytes(self.vision, patches, itemsize) + next_pixels


def _refuse_other_pixels(read: ConfigReader) -> None:
    for key in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if not read.flag(key, default=True):
            read.refuse("images are resized, scaled, centred and read as RGB", where=key)
    for key in ("do_center_crop", "do_pad"):
        if read.flag(key, default=False):
            read.refuse("images are neither cropped nor padded", where=key)
    if (found := read.integer("resample", default=_BICUBIC)) != _BICUBIC:
        read.refuse(f"{found} is another filter than the bicubic one, {_BICUBIC}", where="resample")
    if not math.isclose(factor := read.number("rescale_factor", default=1 / 255), 1 / 255, rel_tol=1e-6):
        read.refuse(f"{factor} is not 1/255", where="rescale_factor")
    for key, want in (("image_mean", _MEAN), ("image_std", _STD)):
        found = read.optional(key)
        if found is not None and found != [want] * 3:
            read.refuse(f"{found!r:.60} is not {want} for each of three colours", where=key)


def prepare_image(rgb: Tensor | NDArray[np.uint8], limits: ImageLimits) -> tuple[Tensor, Grid]:
    """Patches of one image as the vision tower takes them.

    Args:
        rgb: uint8 [height, width, 3].

    Returns:
        float32 [patches, 3 · temporal · P · P], colour by colour, picture by picture, row by row, patches in blocks of
        merge × merge; and (1, height, width) in patches.

    Raises:
        UsageError: another shape or type, or one side is more than 200 times the other.
        UnavailableError: Pillow is not installed.
    """
    image = np.asarray(rgb)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UsageError(
            f"an image is uint8 [height, width, 3], got {image.dtype} {list(image.shape)}; convert it to RGB first"
        )
    size = target_size(image.shape[0], image.shape[1], limits)
    colours_HWC = torch.from_numpy(_resized(image, *size)).float().div_(255).sub_(_MEAN).div_(_STD)
    return _patches(colours_HWC, limits), (1, size[0] // limits.patch_size, size[1] // limits.patch_size)


def target_size(height: int, width: int, limits: ImageLimits) -> tuple[int, int]:
    """(height, width) in whole tokens, as near to the image's shape as they allow, with a legal number of pixels.

    Sides are rounded to the nearest multiple of `factor`, ties to even; where that gives too many pixels they are
    reduced and rounded down, where too few enlarged and rounded up (`smart_resize` of transformers'
    image_processing_pil_qwen2_vl).

    Raises:
        UsageError: one side is more than 200 times the other.
    """
    longer, shorter = max(height, width), min(height, width)
    if longer > _LONGEST_RATIO * shorter:
        raise UsageError(
            f"an image of {height} × {width} pixels: one side is {longer / shorter:.0f} times the other, at most "
            f"{_LONGEST_RATIO}; cut it"
        )
    factor = limits.factor
    rounded = round(height / factor) * factor, round(width / factor) * factor
    if math.prod(rounded) > limits.max_pixels:
        shrink = math.sqrt(height * width / limits.max_pixels)
        return _whole(math.floor(height / shrink / factor), factor), _whole(
            math.floor(width / shrink / factor), factor
        )
    if math.prod(rounded) < limits.min_pixels:
        grow = math.sqrt(limits.min_pixels / (height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return rounded


def _whole(tokens: int, factor: int) -> int:
    return max(1, tokens) * factor


def _resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "images need Pillow, which is not installed: pip install 'inference-pio[vision]'"
        ) from error
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _patches(colours_HWC: Tensor, limits: ImageLimits) -> Tensor:
    merge, side = limits.merge_size, limits.patch_size
    blocks = colours_HWC.unflatten(1, (-1, merge, side)).unflatten(0, (-1, merge, side))
    # [token rows, merge, P, token columns, merge, P, C] -> [patches, C, 1, P, P]
    rows = blocks.permute(0, 3, 1, 4, 6, 2, 5).flatten(0, 3)[:, :, None]
    patches: Tensor = rows.expand(-1, -1, limits.temporal_patch_size, -1, -1).flatten(1)
    return patches
