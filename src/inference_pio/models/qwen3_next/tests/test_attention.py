"""Qwen3-Next's two kinds of mixers against Transformers' layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inference_pio.conformance.bare_model import BLOCK_SIZE, BareModel
from inference_pio.conformance.numbers import assert_close
from inference_pio.conformance.subject import Subject
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.model import Step
from inference_pio.models.qwen3_next.tests.case import TINY
from inference_pio.plugin.facts import TechniqueFact

_LENGTH = 4 * BLOCK_SIZE + 9
# Two chunks, several decoded tokens, and one chunk more.
_CUTS = ((0, 41), (41, 66), (66, 67), (67, 68), (68, _LENGTH))


def _layer_of(tiny: str, kind: str) -> int:
    raw = TINY[tiny]
    interval = raw.get("full_attention_interval", 4)
    stated = raw.get("layer_types")
    for index in range(raw["num_hidden_layers"]):
        by_interval = "linear_attention" if (index + 1) % interval else "full_attention"
        if (stated[index] if stated else by_interval) == kind:
            return index
    raise AssertionError(f"{tiny} has no layer of {kind}")


def _run(bare: BareModel, index: int, x_TD: Tensor) -> Tensor:
    """The mixer of one layer over a sequence in pieces."""
    layer, parts = bare.model.model.layers[index], []
    with torch.inference_mode():
        for start, end in _CUTS:
            batch = bare.batch([(0, [0] * (end - start))])
            step = Step.of(batch, bare.model.model.rotary_emb.cos_sin)
            parts.append(layer.mix(x_TD[start:end], batch, step, bare.caches[index]))
    return torch.cat(parts)


def _input(tiny: str) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(_LENGTH, TINY[tiny]["hidden_size"], generator=generator)


@pytest.mark.parametrize("tiny", ["three-to-one", "mixed", "two-to-one"])
def test_a_gated_attention_layer(subject: Subject, tiny: str) -> None:
    """Its output; queries and gates lie together by head, norms are zero-centred, a part of each head turns."""
    index, x = _layer_of(tiny, "full_attention"), _input(tiny)
    model = subject.reference(tiny).model.model
    rotary = model.rotary_emb(x[None], torch.arange(_LENGTH)[None])
    mask = torch.full((_LENGTH, _LENGTH), float("-inf")).triu(1)[None, None]
    with torch.inference_mode():
        expected, _ = model.layers[index].self_attn(x[None], rotary, attention_mask=mask)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    assert_close(_run(bare, index, x), expected[0], tiny)


@pytest.mark.parametrize("tiny", ["three-to-one", "mixed", "two-to-one"])
def test_a_delta_net_layer(subject: Subject, tiny: str) -> None:
    """Its output, and both states that Transformers leaves behind the same tokens."""
    from transformers import DynamicCache

    index, x = _layer_of(tiny, "linear_attention"), _input(tiny)
    model = subject.reference(tiny).model
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        expected = model.model.layers[index].linear_attn(x[None], cache_params=cache)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    assert_close(_run(bare, index, x), expected[0], tiny)
    held = bare.caches[index]
    width = TINY[tiny]["linear_conv_kernel_dim"]
    conv = cache.get_conv_state(index, state_idx=0)[0].T[-(width - 1) :]
    assert_close(held.conv[0], conv, f"{tiny}: inputs of the convolution")
    assert_close(held.recurrent[0], cache.get_recurrent_state(index, state_idx=0)[0], f"{tiny}: matrices")


def test_a_slot_is_handed_on_as_it_is(subject: Subject) -> None:
    """What one sequence leaves is nothing to the next one in the same slot."""
    bare = BareModel(subject.plugin(), subject.checkpoint("states only"))
    first = bare.prefill([5, 6, 7, 8])
    bare._lengths[0] = 0  # the slot is given to somebody else, whose first row has position 0
    held = [cache.recurrent[0].clone() for cache in bare.caches]
    again = torch.cat([bare.run([(0, [token])])[0] for token in (5, 6, 7, 8)])
    assert_close(again, first, "a used slot")
    for cache, before in zip(bare.caches, held, strict=True):
        assert_close(cache.recurrent[0], before, "the state behind the same tokens")


def _facts(subject: Subject, **fields: Any) -> dict[str, TechniqueFact]:
    return {fact.name: fact for fact in subject.plugin().techniques(Qwen3NextConfig(**fields))}


def test_what_is_said_of_attention_techniques(subject: Subject) -> None:
    facts = _facts(subject)
    assert {name: fact.status for name, fact in facts.items() if fact.category == "attention"} == {
        "FlashAttention 2 (tiled online softmax)": "active",
        "sparse attention": "dormant",
        "paged attention": "active",
        "sliding-window attention": "dormant",
        "multi-query / grouped-query attention": "active",
        "gated delta rule in chunks": "active",
    }
    assert (
        "in 12 of 48 layers 16 heads share 2 KV heads"
        in facts["multi-query / grouped-query attention"].reason
    )
    assert "36 of 48 layers, 64 tokens at once" in facts["gated delta rule in chunks"].reason
    off = _facts(subject, use_flash_attention_2=False, use_paged_attention=False)
    assert off["FlashAttention 2 (tiled online softmax)"].status == "dormant"
    assert off["paged attention"].reason == "use_paged_attention is off"
    states = _facts(subject, num_hidden_layers=2, layer_types=("linear_attention",) * 2)
    assert states["paged attention"].status == "not applicable"
    assert states["multi-query / grouped-query attention"].status == "not applicable"
    attention = _facts(subject, num_hidden_layers=2, layer_types=("full_attention",) * 2)
    assert attention["gated delta rule in chunks"].status == "not applicable"
    assert "every layer attends" in attention["prefix caching"].reason
    assert "every layer attends" in attention["speculative decoding"].reason
    assert "snapshot of the state" in facts["prefix caching"].reason
    assert all(fact.reason for fact in facts.values())
