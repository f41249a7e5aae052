"""The catalogue of bad input: one line each, before anything is decoded where the header gives it away."""

from __future__ import annotations

import base64
import os
import random
import re
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pio.errors import ImageError, UnavailableError
from inference_pio.multimodal.header import count_scans
from inference_pio.multimodal.image import read_image
from inference_pio.multimodal.limits import DEFAULT_LIMITS
from support.images import FILES, gradient, png_chunk, png_of, saved

PNG = FILES["PNG"]


def refusal(source: object, **limits: int) -> str:
    """The error's line, which is never more than one and never shows an object's address."""
    with pytest.raises(ImageError) as caught:
        read_image(source, replace(DEFAULT_LIMITS, **limits))
    line = str(caught.value)
    assert line.startswith("image: ")
    assert "\n" not in line
    assert not re.search(r"0x[0-9a-f]{6,}|<[a-zA-Z_.]+ ", line), line
    assert len(line) < 300
    return line


def outcome(data: bytes) -> torch.Tensor | str:
    """The pixels, or the line that says why not."""
    try:
        return read_image(data)
    except ImageError as error:
        line = str(error)
    assert "\n" not in line
    assert "0x" not in line
    return line


def huge(name: str, width: int, height: int) -> bytes:
    """A file of at most 60 bytes that claims a size."""
    size = struct.pack("<HH", width, height)
    return {
        "PNG": png_of(width, height)[:60],
        "GIF": b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"\x2c" + bytes(4) + size + b"\0\2",
        "BMP": b"BM" + bytes(12) + struct.pack("<Iii", 40, width, -height) + b"\1\0\x18\0" + bytes(24),
        "JPEG": b"\xff\xd8\xff\xc0\0\x11\x08"
        + struct.pack(">HH", height, width)
        + b"\3\1\x22\0\2\x11\1\3\x11\1",
        "WEBP": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0"
        + max(0, width - 1).to_bytes(3, "little")
        + max(0, height - 1).to_bytes(3, "little"),
    }[name]


@pytest.mark.usefixtures("never_decodes")
@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "JPEG", "WEBP"])
def test_bombs_are_refused_by_their_header(name: str) -> None:
    assert "65,535 × 65,535 pixels: a side has 32,768 at most" in refusal(huge(name, 65_535, 65_535))
    line = refusal(huge(name, 8_000, 8_000))
    assert "8,000 × 8,000 = 64,000,000 pixels, more than 40,000,000: scale it down" in line
    assert len(huge(name, 8_000, 8_000)) <= 60


@pytest.mark.usefixtures("never_decodes")
def test_images_without_pixels() -> None:
    for name in ("PNG", "GIF", "BMP", "JPEG"):
        assert f"the {name} image is 0 × 7: it has no pixels" in refusal(huge(name, 0, 7))


@pytest.mark.usefixtures("never_decodes")
def test_the_size_of_a_file_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(PNG)
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    for source in (PNG, path, str(path), url):
        assert re.search(
            r"the file has [\d,]+ bytes, more than 50: save it smaller", refusal(source, max_bytes=50)
        )


@pytest.mark.usefixtures("never_decodes")
@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("http://169.254.169.254/latest/meta-data", "http: addresses are not opened"),
        ("HTTPS://example.com/a.png", "https: addresses are not opened"),
        ("http://[::ffff:127.0.0.1]/", "http: addresses are not opened"),
        ("http:\\\\evil", "http: addresses are not opened"),
        (" ftp://x/y.png", "ftp: addresses are not opened"),
        ("file:///etc/passwd", "file: addresses are not opened"),
        ("javascript:alert(1)", "javascript: addresses are not opened"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "SVG is a drawing program"),
        ("data:text/plain;base64,AAAA", "a data: URL of 'text/plain' is not read"),
        ("data:,", "a data: URL of '' is not read"),
        ("data:image/png,AAAA", "the data: URL is not base64"),
        ("data:image/png;base64", "the data: URL is not base64"),
        ("data:image/png;base64,A", "base64 is broken"),
        ("data:image/png;base64,%41%41", "base64 is broken"),
        ("data:image/png;base64,AAA\u00e9", "base64 is broken"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,/9j/4AAQ", "the JPEG file ends within its header"),
        (b"", "is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is a drawing program"),
        (b"\xef\xbb\xbf <?xml version='1.0'?><svg/>", "SVG is a drawing program"),
        (b"\0\0\0\x20ftypavif", "AVIF, HEIC and films are not read"),
        (b"II*\0" + bytes(30), "TIFF is not read"),
        (b"%PDF-1.7", "PDF is not read"),
        (b"PK\3\4", "ZIP is not read"),
        (b"hello", "not an image: PNG, JPEG, WebP, GIF and BMP are read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "does not begin with its header chunk IHDR"),
        (b"\xff\xd8\xff\xda" + bytes(20), "no frame before its pixels"),
        (b"\xff\xd8\xff\xe0\0\x02zz", "no marker at byte 6"),
        (b"\xff\xd8" + b"\xff" * 1000, "the JPEG file ends within its header"),
        (b"\xff\xd8" + b"\xff" * 100_000, "the JPEG file has no frame behind its first 10000 markers"),
        (huge("JPEG", 9, 9) + b"\xff\xe0\0\2" * 100_000, "the JPEG file has more than 10000 markers"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8 ", "the WEBP file is cut off: 16 bytes of 4294967303"),
        (b"RIFF\x08\0\0\0WEBPALPH", "does not begin with a chunk that holds an image"),
        (b"RIFF\x04\0\0\0WAVE", "not an image"),
        (7, "must be the path of a file, its bytes or a data: URL, got int"),
        (None, "got NoneType"),
        ([PNG], "got list"),
        ({"url": "x"}, "got dict"),
        ("", "cannot be opened: No such file or directory"),
        ("no/such.png", "'no/such.png' cannot be opened: No such file or directory"),
        ("a\0b", "is not the path of a file"),
        ("\ud800", "'\\ud800' is not the path of a file"),
        ("A" * 100_000, "cannot be opened: File name too long"),
        (Path("/"), "'/' is not a regular file"),
        (Path("/dev/zero"), "'/dev/zero' is not a regular file"),
    ],
)
def test_what_is_no_image_is_refused_by_name(source: object, what: str) -> None:
    assert what in refusal(source)


@pytest.mark.usefixtures("never_decodes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refusal(tmp_path / "pipe")


@pytest.mark.usefixtures("never_decodes")
@pytest.mark.parametrize(
    ("claimed", "name"), [("png", "JPEG"), ("jpeg", "PNG"), ("webp", "GIF"), ("gif", "BMP")]
)
def test_a_data_url_that_lies_about_its_content(claimed: str, name: str) -> None:
    url = f"data:image/{claimed};base64,{base64.b64encode(FILES[name]).decode()}"
    assert f"the data: URL says {claimed.upper()} and the file is {name}" in refusal(url)


def test_compressed_text_and_profiles_that_unfold_to_megabytes() -> None:
    unfolding = zlib.compress(bytes(50_000_000), 9)
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
    for kind, name in ((b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")):
        data = png_of(1, 1, png_chunk(kind, name + unfolding), pixels)
        read = outcome(data)
        if isinstance(read, str):
            assert "the PNG image is broken or cut off" in read
        else:
            assert read.tolist() == [[[1, 2, 3]]]
    assert read_image(png_of(1, 1, pixels)).tolist() == [[[1, 2, 3]]]


def test_pixels_that_unfold_beyond_the_image_are_not_unfolded() -> None:
    pixels = zlib.compress(b"\0\1\2\3" + bytes(100_000_000), 9)
    data = png_of(1, 1, png_chunk(b"IDAT", pixels))
    assert read_image(data).tolist() == [[[1, 2, 3]]]


def test_a_gif_whose_first_frame_reaches_beyond_its_screen() -> None:
    data = bytearray(saved(gradient(4, 4), "GIF"))
    frame = data.index(b"\x2c\0\0\0\0\4\0\4\0")
    data[frame + 5 : frame + 9] = struct.pack("<HH", 9000, 9000)
    assert "the GIF file has two sizes, 4 × 4 and 9000 × 9000" in refusal(bytes(data))
    data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    assert "the GIF image is broken or cut off (DecompressionBombError)" in refusal(bytes(data))


def test_a_jpeg_with_a_scan_for_every_ten_bytes() -> None:
    data = FILES["progressive JPEG"]
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    assert "the JPEG file has more than 100 scans" in refusal(data[:start] + scan * 200 + b"\xff\xd9")


@pytest.mark.parametrize("name", ["JPEG", "progressive JPEG"])
def test_scans_of_thumbnails_and_films_beside_a_jpeg_are_not_its_own(name: str) -> None:
    data = FILES[name]
    thumbnails = b"\xff\xe2" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    film = b"ftypmp4" + b"\xff\xda\x00\x02" * 1000
    assert torch.equal(read_image(data[:2] + thumbnails + data[2:] + film), read_image(data))
    found = count_scans(data, 100)
    assert found == data.count(b"\xff\xda") == (1 if name == "JPEG" else 10)
    assert count_scans(data, 3) == min(found, 4)


def test_a_file_of_two_kinds_is_what_its_first_bytes_say() -> None:
    assert torch.equal(read_image(PNG + b"PK\3\4<script>"), read_image(PNG))
    assert "GIF" in refusal(b"GIF89a/*\0\0\0\0*/=1;alert(1)//")
    assert "a side has" in refusal(b"BM" + b"hello, this is text and no picture")


def same_or_refused(data: bytes, whole: torch.Tensor) -> None:
    """What is cut off behind its pixels may still be read; anything else is an error and never other pixels."""
    read = outcome(data)
    assert isinstance(read, str) or torch.equal(read, whole)


@pytest.mark.parametrize("name", FILES)
def test_files_cut_off_at_every_length(name: str) -> None:
    data, whole = FILES[name], read_image(FILES[name])
    for length in range(len(data)):
        same_or_refused(data[:length], whole)
    refusal(data[: len(data) // 2])


@pytest.mark.parametrize("name", FILES)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_broken_bytes_give_an_image_or_one_line(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[name])
    for at, value in changes:
        data[at % len(data)] = value
    pixels = outcome(bytes(data))
    if not isinstance(pixels, str):
        assert pixels.dtype == torch.uint8
        assert pixels.shape[2] == 3
        assert pixels.shape[0] * pixels.shape[1] <= DEFAULT_LIMITS.max_pixels


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=200), magic=st.sampled_from([b"", *(file[:12] for file in FILES.values())]))
def test_noise_never_gives_another_error(data: bytes, magic: bytes) -> None:
    outcome(magic + data)


def test_hostile_exif() -> None:
    plain = FILES["JPEG"]
    rng = random.Random(0)
    for length in (0, 1, 7, 50, 1000, 60_000):
        body = b"Exif\0\0" + rng.choice([b"MM\0*", b"II*\0", b""]) + rng.randbytes(length)
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
        same_or_refused(data, read_image(plain))


def test_without_pillow_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(
        UnavailableError, match=r"^images need Pillow, which is not installed: pip install 'inf"
    ):
        read_image(PNG)
