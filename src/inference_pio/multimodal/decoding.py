"""An image's pixels out of its file: what a broken or hostile file may harm. Neither torch nor a model is needed."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from inference_pio.errors import ImageError, UnavailableError

if TYPE_CHECKING:
    import numpy as np
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


def rgb(data: bytes, where: str, name: str, width: int, height: int) -> tuple[int, int, bytes]:
    """(height, width, rows of RGB) of a file whose header says this format and size.

    Raises:
        ImageError: it is broken.
    """
    pixels = decoded_file(data, where, name, width, height)
    return pixels.shape[0], pixels.shape[1], pixels.tobytes()


def decoded_file(data: bytes, where: str, name: str, width: int, height: int) -> np.ndarray:
    """[H, W, 3] uint8; the image may be turned upright, so that H and W change places."""
    image_module = pillow()
    try:
        image = image_module.open(io.BytesIO(data), formats=(name,))
    except (*_DECODER_ERRORS, image_module.DecompressionBombError) as error:
        raise _broken(name, where, error) from error
    with image:
        if image.size != (width, height):
            # A GIF's first frame may reach beyond its screen, as far as Pillow's own limit.
            said = f"{width} × {height}"
            raise ImageError(
                where, f"the {name} file has two sizes, {said} and {image.width} × {image.height}"
            )
        return decoded(image, where, name)


def decoded(image: Image, where: str, name: str) -> np.ndarray:
    """The pixels as Transformers' `load_image` gives them (`image_utils.py`): turned upright as EXIF says, converted
    to RGB by Pillow. Transparency is dropped, not composited. [H, W, 3] uint8.
    """
    import numpy as np
    from PIL import ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":
            upright.info.pop("transparency", None)  # dropped by the conversion all the same, with a warning
        return np.array(upright.convert("RGB"))
    except _DECODER_ERRORS as error:
        raise _broken(name, where, error) from error


def pillow() -> Any:
    """
    Raises:
        UnavailableError: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UnavailableError(
            "images need Pillow, which is not installed: pip install 'inference-pio[vision]'"
        ) from error
    return Image


def _broken(name: str, where: str, error: BaseException) -> ImageError:
    # Pillow's own words may hold the address of a file object: the kind of error says as much.
    return ImageError(where, f"the {name} image is broken or cut off ({type(error).__name__}): save it anew")
