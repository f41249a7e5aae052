"""The router and the sparse layer against Transformers'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.glm4_moe_lite.modeling_glm4_moe_lite import Glm4MoeLiteTopkRouter

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close
from inference_pio.conformance.subject import Subject
from inference_pio.layers.protocol import KeepsDtype
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.fused_layers.router import Router
from inference_pio.models.glm4_moe_lite.tests.case import TINY
from inference_pio.models.glm4_moe_lite.tests.reference import reference_config

_TOKENS = 50


def _routers(change: dict[str, Any]) -> tuple[Router, Glm4MoeLiteTopkRouter]:
    raw = {**TINY["low-rank"], **change}
    ours, theirs = (
        Router(Glm4MoeLiteConfig.read(raw, "")),
        Glm4MoeLiteTopkRouter(reference_config(raw)),
    )
    rng = torch.Generator().manual_seed(3)
    for held in (ours, theirs):
        rng.manual_seed(3)
        with torch.no_grad():
            held.weight.copy_(torch.randn(held.weight.shape, generator=rng) / 8)
            held.e_score_correction_bias.copy_(torch.randn(len(held.weight), generator=rng))
    return ours, theirs


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"norm_topk_prob": False},
        {"routed_scaling_factor": 2.5, "num_experts_per_tok": 1},
        {"n_group": 4, "topk_group": 2},
        {"n_group": 2, "topk_group": 1, "num_experts_per_tok": 4},
        {"n_group": 4, "topk_group": 4},
    ],
    ids=str,
)
def test_choice_and_weights(change: dict[str, Any]) -> None:
    ours, theirs = _routers(change)
    x = torch.randn(_TOKENS, 64, generator=torch.Generator().manual_seed(4))
    chosen, weights = ours(x)
    _, their_weights, their_choice = theirs(x)
    order, their_order = chosen.argsort(dim=-1), their_choice.argsort(dim=-1)
    assert torch.equal(chosen.gather(1, order), their_choice.gather(1, their_order))
    torch.testing.assert_close(weights.gather(1, order), their_weights.gather(1, their_order))


def test_the_bias_chooses_and_does_not_weigh() -> None:
    router, _ = _routers({"norm_topk_prob": False, "routed_scaling_factor": 1.0})
    x = torch.randn(_TOKENS, 64, generator=torch.Generator().manual_seed(4))
    scores = (x @ router.weight.T).sigmoid()
    chosen, weights = router(x)
    torch.testing.assert_close(weights, scores.gather(1, chosen))
    without = scores.topk(3, dim=-1).indices
    assert not torch.equal(chosen.sort(dim=-1).values, without.sort(dim=-1).values)


def test_the_router_stays_in_float32(subject: Subject) -> None:
    router = _routers({})[0]
    assert isinstance(router, KeepsDtype)
    chosen, weights = router(torch.randn(5, 64).bfloat16())
    assert (chosen.dtype, weights.dtype) == (torch.int64, torch.float32)
    bare = BareModel(subject.plugin(), subject.checkpoint("low-rank"))
    assert bare.model.model.layers[1].mlp.gate.e_score_correction_bias.abs().max() > 0


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_a_sparse_layer(subject: Subject, tiny: str) -> None:
    """Routed and shared experts together, in every layer that has some; the others are dense."""
    x = torch.randn(_TOKENS, 64, generator=torch.Generator().manual_seed(5))
    theirs = subject.reference(tiny).model.model.layers
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    sparse = 0
    for layer, their_layer in zip(bare.model.model.layers, theirs, strict=True):
        with torch.inference_mode():
            expected = their_layer.mlp(x[None])[0]
        assert_close(layer.mlp(x), expected, tiny)
        sparse += hasattr(their_layer.mlp, "experts")
    assert sparse == bare.config.mlp_layer_types.count("sparse") > 0
