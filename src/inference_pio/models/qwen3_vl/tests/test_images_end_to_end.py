"""Images from a caller to an answer, against Transformers' greedy continuation of the same prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference_pio.llm import LLM
from inference_pio.models.qwen3_vl.image_processing import ImageLimits, prepare_image
from inference_pio.models.qwen3_vl.tests.case import IMAGE, tiny_config
from inference_pio.models.qwen3_vl.tests.reference import TransformersQwen3VL
from inference_pio.sampling_params import SamplingParams

# How images come in is the engine's part; where that is not there, neither are these tests.
pytest.importorskip("inference_pio.multimodal")
Image = pytest.importorskip("PIL.Image")

# Patches of the published size: the smallest image has 64 tokens.
RAW = tiny_config({"max_position_embeddings": 512}, {"patch_size": 16})
_GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
_OPTIONS: dict[str, Any] = {"skip_tokenizer_init": True, "kv_cache_memory_gb": 0.01, "block_size": 16}


@pytest.fixture(scope="module")
def reference() -> TransformersQwen3VL:
    return TransformersQwen3VL(RAW)


@pytest.fixture(scope="module")
def path(reference: TransformersQwen3VL, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(reference.save(tmp_path_factory.mktemp("seeing"), "safetensors"))


@pytest.fixture(scope="module")
def llm(path: str) -> Iterator[LLM]:
    with LLM(path, dtype="float32", **_OPTIONS) as llm:
        yield llm


def _picture(height: int, width: int, seed: int) -> Any:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def _asked(ids: list[int], *images: Any) -> dict[str, Any]:
    return {"prompt_token_ids": ids, "multi_modal_data": {"image": list(images)}}


def _expected(reference: TransformersQwen3VL, ids: list[int], *images: Any) -> list[int]:
    """Every token chosen from the logits of one pass over all before it."""
    prepared = [prepare_image(np.asarray(image), ImageLimits()) for image in images]
    pixels, grids = torch.cat([one for one, _ in prepared]), [grid for _, grid in prepared]
    counts = iter([grid[1] * grid[2] // 4 for grid in grids])
    filled = [one for token in ids for one in ([IMAGE] * next(counts) if token == IMAGE else [token])]
    answer: list[int] = []
    for _ in range(12):
        answer.append(int(reference.logits_with([*filled, *answer], pixels, grids)[-1].argmax()))
    return answer


def _answers(llm: LLM, *prompts: dict[str, Any]) -> list[list[int]]:
    return [result.outputs[0].token_ids for result in llm.generate(list(prompts), _GREEDY)]


def test_images_and_texts_at_once(llm: LLM, reference: TransformersQwen3VL) -> None:
    wide, tall = _picture(200, 320, 1), _picture(400, 180, 2)
    one, two, text = [11, 12, IMAGE, 13], [20, IMAGE, 21, 22, IMAGE, 23], [30, 31, 32]
    found = _answers(llm, _asked(one, wide), _asked(two, tall, wide), {"prompt_token_ids": text})
    assert found == [
        _expected(reference, one, wide),
        _expected(reference, two, tall, wide),
        reference.generate(text, 12),
    ]


def test_equal_tokens_with_other_pixels_share_nothing(llm: LLM, reference: TransformersQwen3VL) -> None:
    """The second time the image comes out of the prefix cache; another image of its size does not."""
    first, other = _picture(256, 256, 3), _picture(256, 256, 4)
    ids = [*range(40, 58), IMAGE, 60]
    expected = [_expected(reference, ids, image) for image in (first, other)]
    assert expected[0] != expected[1]
    assert [_answers(llm, _asked(ids, image))[0] for image in (first, first, other)] == [
        expected[0],
        expected[0],
        expected[1],
    ]
    assert llm.plugin.get_compute_stats()["prefix_cache_hit_tokens"] >= 16 * 5


def test_an_image_in_several_chunks(path: str, reference: TransformersQwen3VL) -> None:
    ids, image = [11, IMAGE, 13], _picture(300, 300, 5)
    with LLM(path, dtype="float32", max_num_batched_tokens=24, **_OPTIONS) as llm:
        assert _answers(llm, _asked(ids, image)) == [_expected(reference, ids, image)]


def test_from_a_file(llm: LLM, reference: TransformersQwen3VL, tmp_path: Path) -> None:
    image = _picture(240, 333, 6)
    image.save(tmp_path / "picture.png")
    ids = [IMAGE, 11]
    assert _answers(llm, _asked(ids, str(tmp_path / "picture.png"))) == [_expected(reference, ids, image)]


def test_quantised_text_behind_a_dense_tower_answers(path: str) -> None:
    with LLM(path, quantize="int8", **_OPTIONS) as llm:
        assert [len(ids) for ids in _answers(llm, _asked([IMAGE, 11], _picture(256, 256, 7)))] == [12]
