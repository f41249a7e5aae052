"""Encoders for measurements: valid blocks, near to the values, zeros kept; and a model that zeros make wider."""

from __future__ import annotations

import gguf
import pytest
import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.benchmarks import accuracy
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.workload import Workload
from inference_pio.conformance.subject import Subject
from inference_pio.ops import native
from requantize import KINDS, encode, requantize
from support.packed_gguf import decode
from support.quant_blocks import KINDS as PACKED_KINDS
from support.quant_blocks import blocks_of

needs_kernels = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
# Root mean square of the error beside that of normal values. One scale for all values of a block, uniform levels from
# the least to the largest, would give 0.28, 0.15, 0.07, 0.035 and 0.018 for 2 to 6 bits; nothing is far from it.
MOST = {
    "IQ2_XXS": 0.37, "Q2_K": 0.29, "Q3_K": 0.16, "Q4_0": 0.095, "Q4_1": 0.085, "Q4_K": 0.08, "IQ4_NL": 0.085,
    "IQ4_XS": 0.085, "Q5_0": 0.047, "Q5_1": 0.042, "Q5_K": 0.04, "Q6_K": 0.02, "Q8_0": 0.006,
}  # fmt: skip


def normal(rows: int, columns: int) -> Tensor:
    return 0.02 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(5))


def test_every_kind_that_can_be_packed_can_be_made() -> None:
    assert sorted(KINDS) == sorted(PACKED_KINDS) == sorted(MOST)


@pytest.mark.parametrize("kind", KINDS)
def test_values_come_back_as_near_as_the_bits_allow(kind: str) -> None:
    values = normal(32, 512)
    values[3] = 0.0
    found = decode(encode(values.numpy(), kind), kind)
    assert (found - values).norm() <= MOST[kind] * values.norm()
    assert not found[3].any()


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_one_sign_and_few_that_differ(kind: str) -> None:
    """Scales that fit no ordinary values: all positive, all negative, one that stands out, next to nothing."""
    values = normal(4, 512)
    values[0], values[1] = values[0].abs(), -values[1].abs()
    values[2, 100] = 3.0
    values[3] *= 1e-3
    found = decode(encode(values.numpy(), kind), kind)
    assert found.isfinite().all()
    for row in (0, 1):
        # IQ2_XXS allows an even number of minus signs only, and that is what these rows have.
        assert (found[row] - values[row]).norm() <= 1.4 * MOST[kind] * values[row].norm()
    # No point of IQ2_XXS's grid has zeros: the smallest sum of squares is where the large value counts half.
    assert found[2, 100] == pytest.approx(3.0, rel=0.52 if kind == "IQ2_XXS" else 0.1)


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
def test_a_product_with_real_blocks_is_near_the_one_in_float32(kind: str) -> None:
    """Weights as models have them, activations that are not rounded: 8 bits in groups of 64 cost less than 1 %."""
    data = torch.from_numpy(encode(normal(96, 512).numpy(), kind))
    x_TK = torch.randn(9, 512, generator=torch.Generator().manual_seed(6))
    want = x_TK.double() @ decode(data, kind).double().T
    got = ops.linear(x_TK, ops.pack_quantized([blocks_of(kind, data, 512)]))
    assert (got - want).norm() <= 0.01 * want.norm()


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject.of("llama", tmp_path_factory.mktemp("requantize"), collected={})


def test_a_wider_model_says_the_same(subject: Subject) -> None:
    source = subject.checkpoint("grouped", "gguf")
    plain, wide = (
        requantize(source, subject.workdir / f"{multiple}.gguf", lambda _: "Q8_0", multiple)
        for multiple in (1, 256)
    )
    kinds = {tensor.name: tensor.shape for tensor in gguf.GGUFReader(wide).tensors}
    assert all(shape[0] % 256 == 0 for shape in kinds.values() if len(shape) == 2)
    ids = [3 + 7 * i % 200 for i in range(40)]
    scores = []
    for path in (plain, wide):
        with LoadedModel("llama", str(path), [Workload(1, 64, 64)], dtype="float32") as loaded:
            scores.append(accuracy.score(loaded, ids))
    torch.testing.assert_close(scores[1].nll, scores[0].nll, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_widened_is_refused(subject: Subject) -> None:
    source, target = subject.checkpoint("grouped", "gguf"), subject.workdir / "no.gguf"
    with pytest.raises(ValueError, match="is not whole groups of"):
        requantize(source, target, lambda _: "Q8_0", 72)
