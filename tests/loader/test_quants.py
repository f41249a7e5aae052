"""Dequantisation against the gguf package, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf import quants

from inference_pio.loader.dequantize import DECODERS, dequantize
from inference_pio.loader.ggml_types import GGML_TYPES, OTHER_TYPES, TYPES_BY_NAME


@pytest.mark.parametrize("name", sorted(DECODERS))
@pytest.mark.parametrize("scales", ["any bytes", "finite"])
def test_random_blocks_decode_exactly_as_the_reference_decodes_them(name: str, scales: str) -> None:
    kind = TYPES_BY_NAME[name]
    blocks = np.random.default_rng(7).integers(0, 256, (4096, kind.block_bytes), dtype=np.uint8)
    if scales == "finite":
        # with the upper bits of every exponent clear no half is infinite or NaN, so that every value is compared
        blocks[:, 1::2] &= 0xBF
        blocks[:, 0::2] &= 0xBF
    with np.errstate(all="ignore"):
        expected = quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
    found = dequantize(torch.from_numpy(blocks), name).numpy()
    assert found.dtype == np.float32
    finite = ~np.isnan(expected)
    assert finite.all() if scales == "finite" else finite.mean() > 0.8
    np.testing.assert_array_equal(np.isnan(found), ~finite)
    np.testing.assert_array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))


def test_every_nibble_and_scale_byte_of_q4_1() -> None:
    blocks = torch.zeros(256, 20, dtype=torch.uint8)
    blocks[:, 0:4] = torch.tensor([0, 0x3C, 0, 0xC0])  # scale 1, minimum -2
    blocks[:, 4:] = torch.arange(256, dtype=torch.uint8)[:, None]
    values = dequantize(blocks, "Q4_1")
    byte = torch.arange(256)
    assert torch.equal(values[:, :16], ((byte & 15) - 2.0)[:, None].expand(256, 16))
    assert torch.equal(values[:, 16:], ((byte >> 4) - 2.0)[:, None].expand(256, 16))


def test_block_table_is_that_of_the_reference() -> None:
    for number, kind in GGML_TYPES.items():
        reference = gguf.GGMLQuantizationType(number)
        assert kind.name == reference.name
        assert (kind.block_size, kind.block_bytes) == gguf.GGML_QUANT_SIZES[reference]


def test_every_type_of_the_reference_is_decoded_or_refused_by_name() -> None:
    ours = {number: kind.name for number, kind in GGML_TYPES.items()} | OTHER_TYPES
    for reference in gguf.GGMLQuantizationType:
        assert ours[reference.value] == reference.name
    assert not GGML_TYPES.keys() & OTHER_TYPES.keys()
