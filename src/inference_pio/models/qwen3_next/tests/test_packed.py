"""Qwen3-Next in blocks: what stays in memory, how near the answers are, and that decoding is recorded."""

from __future__ import annotations

import pytest

from inference_pio.conformance.packed import InBlocks
from inference_pio.llm import LLM
from inference_pio.models.qwen3_next.tests.case import TINY
from inference_pio.models.qwen3_next.tests.reference import TransformersQwen3Next
from inference_pio.ops import native

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
# Rows of whole blocks of 32 everywhere.
_RAW = {**TINY["three-to-one"], "shared_expert_intermediate_size": 64}


_DENSE = ("conv1d", "mlp.gate.", "shared_expert_gate", "in_proj_ba")


@pytest.fixture(scope="module", params=["int8", "int4"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> InBlocks:
    return InBlocks(TransformersQwen3Next(_RAW), tmp_path_factory.mktemp("packed"), request.param, _DENSE)


@pytest.mark.parametrize("check", InBlocks.checks)
def test_in_blocks(subject: InBlocks, check: str) -> None:
    getattr(subject, check)()


def test_experts_are_in_blocks_and_small_maps_are_not(subject: InBlocks) -> None:
    with LLM(str(subject.path), quantize="int4", **InBlocks.options) as llm:
        layer = llm.plugin.load_model().model.layers[1]
        assert set(layer.mlp.experts.stacks) == {"gate_up_proj", "down_proj"}
        assert layer.mlp.gate.weight is not None
        assert layer.linear_attn.in_proj_ba.weight is not None
        assert layer.linear_attn.in_proj_qkvz.weight is None
