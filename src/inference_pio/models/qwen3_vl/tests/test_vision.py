"""The vision tower and the positions of a prompt with images against Transformers'."""

from __future__ import annotations

import weakref
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UsageError
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig, VisionConfig
from inference_pio.models.qwen3_vl.rotary_embeddings.patch_positions import (
    LearnedPositions,
    Places,
    patch_rotation,
)
from inference_pio.models.qwen3_vl.rotary_embeddings.positions import rope_positions
from inference_pio.models.qwen3_vl.rotary_embeddings.rotary_embedding import axis_of_columns
from inference_pio.models.qwen3_vl.tests.case import TINY
from inference_pio.models.qwen3_vl.tests.prompts import Grid, write
from inference_pio.plugin.media import MediaItem

# One with more patches than the tower turns at once.
GRIDS: list[Grid] = [(1, 6, 6), (1, 30, 42), (1, 6, 48), (1, 24, 6)]
_CPU = torch.device("cpu")


@pytest.mark.parametrize("tiny", TINY)
def test_features_of_several_images(subject: Subject, tiny: str) -> None:
    """All images at once: the result and the features of every layer of DeepStack, each compared by itself."""
    prompt = write(TINY[tiny], [GRIDS[0], 1, GRIDS[1], 1, GRIDS[2], 1, GRIDS[3]])
    expected = subject.reference(tiny).features(prompt.pixels, prompt.grids)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    with torch.inference_mode():
        found = bare.model.encode_media(prompt.pixels, prompt.grids)
        alone = [bare.model.encode_media(item.pixels, [item.grid]) for item in prompt.media]
    layers = len(TINY[tiny]["vision_config"]["deepstack_visual_indexes"])
    assert found.shape == (sum(item.length for item in prompt.media), 64 * (1 + layers))
    for part, (ours, theirs) in enumerate(
        zip(found.split(64, dim=1), expected.split(64, dim=1), strict=True)
    ):
        assert_close(ours, theirs, f"{tiny}: part {part}")
    assert_close(torch.cat(alone), found, f"{tiny}: one by one")


def test_features_in_bfloat16(subject: Subject) -> None:
    """Features have the model's type, and their error is no larger than Transformers'."""
    prompt = write(TINY["grouped"], [GRIDS[1], 1, GRIDS[3]])
    reference = subject.reference("grouped")
    rounded = deepcopy(reference)
    for parameter in rounded.model.parameters():
        parameter.data = parameter.data.bfloat16()
    exact = reference.features(prompt.pixels, prompt.grids)
    theirs = rounded.features(prompt.pixels.bfloat16(), prompt.grids)
    bare = BareModel(subject.plugin(), subject.checkpoint("grouped"), dtype=torch.bfloat16)
    with torch.inference_mode():
        ours = bare.model.encode_media(prompt.pixels, prompt.grids)
    assert ours.dtype == torch.bfloat16
    errors = [(found.float() - exact).abs().mean() for found in (ours, theirs)]
    assert 0 < errors[0] <= 1.05 * errors[1]


@pytest.mark.parametrize(("merge", "side"), [(1, 3), (2, 48), (3, 7), (2, 1)])
def test_positions_of_patches(merge: int, side: int) -> None:
    """Learned vectors between those of the grid, and angles by row and column; images smaller and larger than it."""
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionRotaryEmbedding
    from transformers.vision_utils import (
        get_vision_interpolation_indices_and_weights,
        get_vision_position_ids,
    )

    grids = torch.tensor([(1, merge, merge), (1, 6, 18), (1, 60, 6)])
    vision = VisionConfig(
        hidden_size=32, num_heads=2, num_position_embeddings=side**2, spatial_merge_size=merge
    )
    places = Places.of([tuple(grid) for grid in grids.tolist()], merge, _CPU)
    table = LearnedPositions(vision)
    torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(3))
    index, weight = get_vision_interpolation_indices_and_weights(
        grids, side, mode="bilinear", align_corners=True, spatial_merge_size=merge
    )
    torch.testing.assert_close(table(places), (table.weight[index] * weight[..., None]).sum(1))
    theirs = Qwen3VLVisionRotaryEmbedding(Qwen3VLVisionConfig(hidden_size=32, num_heads=2))
    expected = theirs(torch.zeros(1), get_vision_position_ids(grids, merge))
    for ours, other in zip(patch_rotation(places, vision.head_dim), expected, strict=True):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("tiny", ["grouped", "multi-query", "biased"])
@pytest.mark.parametrize(
    "pieces",
    [
        [20],
        [(1, 6, 6)],
        [(1, 6, 24), 3],
        [4, (1, 24, 6)],
        [4, (1, 12, 12), 1, (1, 6, 18), 9, (1, 18, 6), 2],
    ],
    ids=str,
)
def test_positions_of_a_prompt(subject: Subject, tiny: str, pieces: list[int | Grid]) -> None:
    prompt = write(TINY[tiny], pieces)
    expected, delta = subject.reference(tiny).rope_index(prompt.token_ids, prompt.grids)
    merge = TINY[tiny]["vision_config"]["spatial_merge_size"]
    found = rope_positions(prompt.token_ids, prompt.media, merge)
    assert found[0].dtype == torch.int64
    assert torch.equal(found[0], expected)
    assert found[1] == delta
    assert delta <= 0


def test_positions_that_there_cannot_be() -> None:
    def item(start: int, length: int, grid: Grid) -> MediaItem:
        return MediaItem(start, length, b"", torch.empty(0), grid)

    for media, words in (
        ([item(0, 18, (2, 6, 6))], "2 patches along time are a video"),
        ([item(0, 8, (1, 6, 6))], "6 × 6 patches, 2 × 2 to a token, cannot fill 8 tokens"),
        ([item(0, 7, (1, 5, 6))], "5 × 6 patches"),
        ([item(2, 9, (1, 6, 6))], "an image of 9 tokens cannot begin at token 2 of 10"),
        ([item(0, 4, (1, 4, 4)), item(3, 4, (1, 4, 4))], "begin at token 3 of 10: the last one ends at 4"),
    ):
        with pytest.raises(UsageError, match=words):
            rope_positions([0] * 10, media, 2)


@pytest.mark.parametrize("section", [(24, 20, 20), (6, 5, 5), (8, 4, 4), (2, 1, 1)])
def test_which_axis_turns_which_pair(section: tuple[int, int, int]) -> None:
    """Transformers' own dealing out, read off three tables that hold nothing but their number."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

    stated = SimpleNamespace(mrope_section=list(section))
    tables = torch.arange(3.0)[:, None, None, None].expand(3, 1, 1, sum(section)).clone()
    expected = Qwen3VLTextRotaryEmbedding.recomposition_frequencies(stated, tables)
    found = axis_of_columns(section)
    assert found.tolist() == expected.flatten().tolist()
    assert [found.tolist().count(axis) for axis in range(3)] == [2 * count for count in section]


def test_the_media_processor_is_the_models(subject: Subject) -> None:
    """What the engine asks of the plugin: the id, the number of tokens, and positions with the model's own merge."""
    processor = subject.plugin().media_processor(Qwen3VLConfig.read(TINY["multi-query"], ""))
    assert processor.placeholder == TINY["multi-query"]["image_token_id"]
    assert processor.tokens((1, 12, 6)) == 8
    prompt = write(TINY["multi-query"], [3, (1, 12, 6), 2])
    expected = rope_positions(prompt.token_ids, prompt.media, 3)
    found = processor.rope_positions(prompt.token_ids, prompt.media)
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1] == -4


class _Live(TorchDispatchMode):
    """The most bytes of storages made in this context that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {one.untyped_storage()._cdata for one in args if isinstance(one, torch.Tensor)}
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self._known | given:
                storage = one.untyped_storage()
                self._known.add(storage._cdata)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self._now)
        return result

    def _gone(self, number: int, nbytes: int) -> None:
        self._known.discard(number)
        self._now -= nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tiny", ["grouped", "multi-query", "biased"])
def test_memory_of_encoding_is_what_is_stated(subject: Subject, tiny: str, dtype: torch.dtype) -> None:
    """The largest amount that is alive at once is under what the planner is told, and not far under it."""
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny), dtype=dtype)
    prompt = write(TINY[tiny], [(1, 60, 66)])
    with torch.inference_mode(), _Live() as live:
        features = bare.model.encode_media(prompt.pixels, prompt.grids)
    stated = subject.plugin().media_processor(bare.config).encoder_bytes(len(features), dtype.itemsize)
    assert live.most <= stated <= 2 * live.most
