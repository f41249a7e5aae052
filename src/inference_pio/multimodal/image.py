"""An image's pixels, decoded under limits that are held against its header first."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inference_pio.errors import ImageError, UnavailableError
from inference_pio.multimodal.header import BadHeader, Header, read_header
from inference_pio.multimodal.limits import DEFAULT_LIMITS, ImageLimits
from inference_pio.multimodal.source import file_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

# What Pillow raises on files that somebody broke, warnings among it where the program has made errors of them.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    MemoryError,
    Warning,
    struct.error,
    zlib.error,
)
# A scan of a JPEG file costs a pass over all of its pixels and may take ten bytes. Encoders write about ten.
_MAX_SCANS = 100


def read_image(source: object, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> Tensor:
    """The pixels as Transformers' `load_image` gives them (`image_utils.py`): turned upright as EXIF says, converted
    to RGB by Pillow. Transparency is dropped, not composited: a pixel keeps the colour that it has underneath. Of an
    animation it is the first frame.

    Args:
        source: the path of a PNG, JPEG, WebP, GIF or BMP file, its bytes, `data:image/…;base64,…`, or an image that
            Pillow has opened.
        where: names the image in errors.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ImageError: not such a source, over a limit (found out before anything is decoded), or broken.
        UnavailableError: Pillow is not installed.
    """
    pillow = _pillow()
    if isinstance(source, pillow.Image):
        _check(Header("given", *source.size), where, limits)
        return _decoded(source, where)
    data, claimed = file_bytes(source, where, limits.max_bytes)
    try:
        header = read_header(data)
    except BadHeader as error:
        raise ImageError(where, str(error)) from error
    if claimed not in (None, header.format):
        raise ImageError(where, f"the data: URL says {claimed} and the file is {header.format}")
    _check(header, where, limits)
    if header.format == "JPEG" and (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise ImageError(where, f"the JPEG file has {scans} scans, more than {_MAX_SCANS}: save it anew")
    try:
        image = pillow.open(io.BytesIO(data), formats=(header.format,))
    except _DECODER_ERRORS as error:
        raise _broken(header.format, where, error) from error
    with image:
        if image.size != (header.width, header.height):
            # A GIF's first frame may reach beyond its screen; nothing else has two sizes.
            found = f"{image.width} × {image.height}"
            raise ImageError(
                where,
                f"the {header.format} file has two sizes, {header.width} × {header.height} and {found}",
            )
        return _decoded(image, where, header.format)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise UnavailableError(
            "images need Pillow, which is not installed: pip install 'inference-pio[vision]'"
        ) from error
    return Image


def _check(header: Header, where: str, limits: ImageLimits) -> None:
    width, height = header.width, header.height
    shown = f"{width:,} × {height:,}"
    if width < 1 or height < 1:
        raise ImageError(where, f"the {header.format} image is {shown}: it has no pixels")
    if max(width, height) > limits.max_side:
        raise ImageError(where, f"{shown} pixels: a side has {limits.max_side:,} at most; scale it down")
    if width * height > limits.max_pixels:
        raise ImageError(
            where,
            f"{shown} = {width * height:,} pixels, more than {limits.max_pixels:,}: scale it down",
        )


def _decoded(image: Image, where: str, name: str = "given") -> Tensor:
    from PIL import ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":
            upright.info.pop("transparency", None)  # dropped by the conversion all the same, with a warning
        pixels = np.array(upright.convert("RGB"))
    except _DECODER_ERRORS as error:
        raise _broken(name, where, error) from error
    return torch.from_numpy(pixels)


def _broken(name: str, where: str, error: BaseException) -> ImageError:
    # Pillow's own words may hold the address of a file object: the kind of error says as much.
    return ImageError(where, f"the {name} image is broken or cut off ({type(error).__name__}): save it anew")
