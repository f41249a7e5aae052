"""Pixels are those that Transformers' `load_image` gives, for every format and mode."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import load_image

from inference_pio.errors import ImageError
from inference_pio.multimodal.header import read_header
from inference_pio.multimodal.image import read_image
from support.images import FILES, gradient, saved


def reference(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(load_image(Image.open(io.BytesIO(data)))))


@pytest.mark.parametrize("name", FILES)
def test_a_file_its_bytes_and_a_data_url_give_the_same_pixels(name: str, tmp_path: Path) -> None:
    data = FILES[name]
    expected = reference(data)
    path = tmp_path / "image"
    path.write_bytes(data)
    mime = name.split()[-1].lower()
    url = f"data:image/{mime};base64,{base64.b64encode(data).decode()}"
    for source in (data, bytearray(data), path, str(path), url, Image.open(io.BytesIO(data))):
        pixels = read_image(source)
        assert pixels.dtype == torch.uint8
        assert pixels.shape == (12, 20, 3)
        assert torch.equal(pixels, expected)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("I;16", "PNG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGBA", "WEBP"),
        ("1", "BMP"),
        ("RGBA", "BMP"),
        ("L", "GIF"),
    ],
)
def test_every_mode_becomes_rgb_as_in_transformers(mode: str, name: str) -> None:
    image = gradient(mode="L").convert(mode) if mode == "I;16" else gradient(mode=mode)
    data = saved(image, name)
    assert torch.equal(read_image(data), reference(data))


def test_transparency_is_dropped_and_not_composited() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    assert read_image(saved(image, "PNG")).tolist() == [[[10, 20, 30], [10, 20, 30]]]
    palette = gradient(mode="P")
    data = saved(palette, "PNG", transparency=bytes(range(200)))
    assert torch.equal(read_image(data), torch.from_numpy(np.array(palette.convert("RGB"))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_the_image_upright(orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(gradient(), name, exif=exif)
    pixels = read_image(data)
    assert torch.equal(pixels, reference(data))
    assert pixels.shape[:2] == ((12, 20) if orientation < 5 else (20, 12))


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_it_is_the_first_frame(name: str) -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    data = saved(first, name, save_all=True, append_images=[second] * 3, duration=10, lossless=True)
    assert torch.equal(read_image(data), reference(data))
    assert read_image(data)[0, 0].tolist() == [255, 0, 0] or name == "WEBP"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (257, 2)])
def test_the_header_says_what_pillow_says(name: str, size: tuple[int, int]) -> None:
    options = {"progressive": True} if name == "progressive JPEG" else {"lossless": "lossless" in name}
    data = saved(gradient(*size), name.split()[-1], **options)
    header = read_header(data)
    with Image.open(io.BytesIO(data)) as image:
        assert (header.format, header.width, header.height) == (image.format, *image.size)


@pytest.mark.parametrize("turned", [False, True])
def test_bitmaps_of_old_and_from_top_to_bottom(turned: bool) -> None:
    rows = bytes(range(24))  # 2 × 4 pixels of 3 bytes, each row padded to 8
    rows = b"".join(rows[i : i + 6] + b"\0\0" for i in range(0, 24, 6))
    if turned:
        header = (40).to_bytes(4, "little") + (2).to_bytes(4, "little")
        header += (-4).to_bytes(4, "little", signed=True) + b"\1\0\x18\0" + bytes(24)
    else:
        header = (12).to_bytes(4, "little") + b"\2\0\4\0" + b"\1\0\x18\0"
    start = 14 + len(header)
    data = b"BM" + (start + len(rows)).to_bytes(4, "little") + bytes(4) + start.to_bytes(4, "little")
    data += header + rows
    pixels = read_image(data)
    assert pixels.shape == (4, 2, 3)
    assert torch.equal(pixels, reference(data))
    first = pixels[0 if turned else 3, 0].tolist()
    assert first == [2, 1, 0]


def test_an_image_that_pillow_has_opened_is_held_to_the_limits() -> None:
    with pytest.raises(
        ImageError, match=r"^image: 40,000 × 1 pixels: a side has 32,768 at most; scale it down$"
    ):
        read_image(Image.new("L", (40_000, 1)))
