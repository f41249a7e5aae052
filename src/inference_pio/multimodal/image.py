"""An image's pixels, decoded under limits that are held against its header first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_pio.errors import ImageError, UsageError
from inference_pio.multimodal.decoding import decoded, pillow, rgb
from inference_pio.multimodal.header import BadHeader, Header, count_scans, read_header
from inference_pio.multimodal.limits import DEFAULT_LIMITS, ImageLimits
from inference_pio.multimodal.source import file_bytes
from inference_pio.plugin.media import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Decoder = Callable[[bytes, str, str, int, int], tuple[int, int, bytes]]
"""As `decoding.rgb`: a file, its name in errors, its format, width and height to height, width and rows of RGB."""

# A scan of a JPEG file costs a pass over all of its pixels and may take ten bytes. Encoders write about ten.
_MAX_SCANS = 100


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image that was decoded elsewhere: rows of RGB, 8 bits each."""

    height: int
    width: int
    rows: bytes | memoryview

    def __post_init__(self) -> None:
        if len(self.rows) != 3 * self.height * self.width:
            raise ValueError(f"{len(self.rows)} bytes of an image with {self.height} × {self.width} pixels")


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image within the limits, as far as its header can say, and not decoded yet.

    data  the file's bytes, what Pillow has opened, or pixels that need no decoder
    """

    where: str
    header: Header
    data: bytes | Image | Pixels

    def pixels(self, decoder: Decoder = rgb) -> Pixels:
        """Raises `ImageError` where the file is broken. `decoder` is where files are decoded."""
        header = self.header
        if isinstance(self.data, Pixels):
            return self.data
        if isinstance(self.data, bytes):
            return Pixels(*decoder(self.data, self.where, header.format, header.width, header.height))
        array = decoded(self.data, self.where, header.format)
        return Pixels(array.shape[0], array.shape[1], array.tobytes())

    def decode(self, decoder: Decoder = rgb) -> Tensor:
        """[H, W, 3] uint8, as `pixels`."""
        import torch  # who only passes images on does without

        made = self.pixels(decoder)
        return torch.frombuffer(bytearray(made.rows), dtype=torch.uint8).view(made.height, made.width, 3)


def read_image(source: object, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> Tensor:
    """The pixels as Transformers' `load_image` gives them (`image_utils.py`): turned upright as EXIF says, converted
    to RGB by Pillow. Transparency is dropped, not composited: a pixel keeps the colour that it has underneath. Of an
    animation it is the first frame.

    Args:
        source, where: as for `open_image`.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ImageError: not such a source, over a limit (found out before anything is decoded), or broken.
        UnavailableError: Pillow is not installed.
    """
    return open_image(source, limits, where).decode()


def open_image(source: object, limits: ImageLimits = DEFAULT_LIMITS, where: str = "image") -> ImageFile:
    """An image's file, with its header read and held to the limits.

    Args:
        source: the path of a PNG, JPEG, WebP, GIF or BMP file, its bytes, `data:image/…;base64,…`, an image that
            Pillow has opened, or `Pixels`.
        where: names the image in errors.

    Raises:
        ImageError: not such a source, or over a limit.
        UnavailableError: Pillow is not installed, and it is needed.
    """
    if isinstance(source, Pixels):
        told = Header("decoded", source.width, source.height)
        _check(told, where, limits)
        return ImageFile(where, told, source)
    if isinstance(source, pillow().Image):
        given = Header("given", source.width, source.height)
        _check(given, where, limits)
        return ImageFile(where, given, source)
    data, claimed = file_bytes(source, where, limits.max_bytes)
    try:
        header = read_header(data)
        scans = count_scans(data, _MAX_SCANS) if header.format == "JPEG" else 0
    except BadHeader as error:
        raise ImageError(where, str(error)) from error
    if claimed not in (None, header.format):
        raise ImageError(where, f"the data: URL says {claimed} and the file is {header.format}")
    _check(header, where, limits)
    if scans > _MAX_SCANS:
        raise ImageError(where, f"the JPEG file has more than {_MAX_SCANS} scans: save it anew")
    return ImageFile(where, header, data)


def open_images(images: Sequence[ImageSource], limits: ImageLimits = DEFAULT_LIMITS) -> list[ImageFile]:
    """All images of a request: their headers are read and held to the limits before the first one is decoded.

    Raises:
        UsageError: more images than are allowed.
        ImageError, UnavailableError: as for `open_image`.
    """
    if len(images) > limits.max_images:
        raise UsageError(
            f"{len(images)} images in one request, and {limits.max_images} are allowed: leave some out"
        )
    files, total = [], 0
    for image in images:
        file = open_image(image.source, limits, image.where)
        files.append(file)
        total += file.header.width * file.header.height
        if total > limits.max_total:
            raise ImageError(
                image.where,
                f"with it the request's images have {total:,} pixels, more than {limits.max_total:,}: scale them down",
            )
    return files


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
