"""From an image to patches, against Transformers' processor."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference_pio.conformance.subject import Subject
from inference_pio.errors import ModelFileError, UnavailableError, UsageError
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.models.qwen3_vl.image_processing import ImageLimits, prepare_image, target_size
from inference_pio.models.qwen3_vl.tests.case import PUBLISHED, TINY

# Height and width: tiny, tall, wide, the most extreme legal ones, whole tokens, halves of tokens (ties), large.
SIZES = [
    (1, 1),
    (1, 200),
    (199, 1),
    (37, 411),
    (700, 333),
    (256, 256),
    (304, 496),
    (5, 900),
    (1000, 31),
    (801, 1203),
]
_PUBLISHED = ImageLimits()
_SMALL = ImageLimits(patch_size=4, merge_size=3, temporal_patch_size=1, min_pixels=500, max_pixels=30_000)


def _picture(height: int, width: int) -> NDArray[np.uint8]:
    """A gradient with noise and hard edges."""
    noise = np.random.default_rng(height * 10_007 + width).normal(0, 30, (height, width, 3))
    rows, columns = np.linspace(0, 200, height)[:, None, None], np.linspace(0, 55, width)[None, :, None]
    picture = np.clip(rows + columns + noise, 0, 255).astype(np.uint8)
    picture[height // 3 : height // 2, width // 4 : width // 2] = (255, 0, 128)
    return picture


def _by_transformers(picture: NDArray[np.uint8], limits: ImageLimits) -> Any:
    pytest.importorskip("PIL")
    from PIL import Image
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels},
        patch_size=limits.patch_size,
        merge_size=limits.merge_size,
        temporal_patch_size=limits.temporal_patch_size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return processor(images=Image.fromarray(picture), return_tensors="pt")


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("limits", [_PUBLISHED, _SMALL], ids=["published", "small"])
def test_patches_are_transformers(size: tuple[int, int], limits: ImageLimits) -> None:
    picture = _picture(*size)
    expected = _by_transformers(picture, limits)
    pixels, grid = prepare_image(torch.from_numpy(picture), limits)
    assert [list(grid)] == expected["image_grid_thw"].tolist()
    assert (pixels.dtype, pixels.shape) == (torch.float32, expected["pixel_values"].shape)
    torch.testing.assert_close(pixels, expected["pixel_values"], rtol=0, atol=1e-5)
    assert limits.min_pixels <= grid[1] * grid[2] * limits.patch_size**2 <= limits.max_pixels


def test_sizes_are_transformers() -> None:
    """Every kind of size: rounding to even at ties, too large, too small, and what is left of a thin one."""
    pytest.importorskip("PIL")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    for limits in (_PUBLISHED, _SMALL, replace(_PUBLISHED, max_pixels=1024 * 32, min_pixels=1024)):
        for height in (1, 15, 16, 17, 48, 80, 112, 333, 1024, 4096, 7777):
            for width in (1, 16, 32, 48, 200, 1999, 4097):
                if max(height, width) <= 200 * min(height, width):
                    bounds = (limits.min_pixels, limits.max_pixels)
                    expected = smart_resize(height, width, limits.factor, *bounds)
                    assert target_size(height, width, limits) == expected


def test_images_that_are_refused() -> None:
    for picture, words in (
        (np.zeros((1, 201, 3), np.uint8), "1 × 201 pixels: one side is 201 times the other, at most 200"),
        (np.zeros((8, 8), np.uint8), r"an image is uint8 .*got uint8 \[8, 8\]; convert it to RGB"),
        (np.zeros((8, 8, 4), np.uint8), r"got uint8 \[8, 8, 4\]"),
        (np.zeros((8, 8, 3), np.float32), "got float32"),
        (np.zeros((0, 8, 3), np.uint8), r"got uint8 \[0, 8, 3\]"),
    ):
        with pytest.raises(UsageError, match=words):
            prepare_image(picture, _PUBLISHED)


def test_without_pillow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnavailableError, match=r"images need Pillow.*pip install 'inference-pio\[vision\]'"):
        prepare_image(np.zeros((8, 8, 3), np.uint8), _PUBLISHED)


def test_the_plugins_processor_cuts_as_its_model_reads(subject: Subject) -> None:
    pytest.importorskip("PIL")
    processor = subject.plugin().media_processor(Qwen3VLConfig.read(TINY["multi-query"], ""))
    pixels, grid = processor.prepare(torch.from_numpy(_picture(100, 90)))
    assert pixels.shape == (grid[1] * grid[2], 3 * 2 * 2)
    assert processor.tokens(grid) * 9 == len(pixels)
    published = Qwen3VLConfig.read(PUBLISHED["configs"]["Qwen3-VL-2B-Instruct"], "")
    assert subject.plugin().media_processor(published).limits == _PUBLISHED
    fewer = replace(processor, limits=replace(processor.limits, min_pixels=36, max_pixels=3600))
    assert fewer.tokens(fewer.prepare(torch.from_numpy(_picture(100, 90)))[1]) <= 100


_FILE = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "do_center_crop": None,
    "rescale_factor": 0.00392156862745098,
    "resample": 3,
}


def _limits(**changes: object) -> ImageLimits:
    published = Qwen3VLConfig.read(PUBLISHED["configs"]["Qwen3-VL-2B-Instruct"], "")
    return ImageLimits.read({**_FILE, **changes}, "preprocessor_config.json", published.vision)


def test_limits_are_those_of_the_file() -> None:
    assert _limits() == _PUBLISHED
    smaller = _limits(size={"longest_edge": 1_003_520, "shortest_edge": 3_136})
    assert (smaller.min_pixels, smaller.max_pixels) == (3_136, 1_003_520)
    older = _limits(size=None, min_pixels=3_136, max_pixels=1_003_520)
    assert older == smaller


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("patch_size", 14), ("merge_size", 3), ("temporal_patch_size", 1), ("do_resize", False)),
        *(
            ("do_center_crop", True),
            ("resample", 2),
            ("rescale_factor", 1.0),
            ("image_mean", [0.48, 0.46, 0.4]),
        ),
        *(("image_std", 0.5), ("size", {"shortest_edge": 9, "longest_edge": 8}), ("do_sharpen", True)),
        ("size", {"height": 224, "width": 224}),
    ],
)
def test_a_file_that_asks_for_other_pixels_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(
        ModelFileError, match="height, width" if value == {"height": 224, "width": 224} else key
    ):
        _limits(**{key: value})
