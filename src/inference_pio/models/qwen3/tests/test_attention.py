"""Qwen3's attention module against Transformers' layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference_pio.conformance.bare_model import BLOCK_SIZE, BareModel
from inference_pio.conformance.numbers import assert_close
from inference_pio.conformance.subject import Subject
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.models.qwen3.tests.case import TINY
from inference_pio.plugin.facts import TechniqueFact

_LENGTH = 3 * BLOCK_SIZE + 5


@pytest.mark.parametrize("tiny", ["grouped", "multi-head", "multi-query", "biased", "yarn"])
def test_one_layer(subject: Subject, tiny: str) -> None:
    """Output of the first attention module, and the normalised keys and the values it leaves in the cache."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_LENGTH, TINY[tiny]["hidden_size"], generator=generator)
    expected, keys, values = _by_transformers(subject.reference(tiny).model, x)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    attention, cos_sin = bare.model.model.layers[0].self_attn, bare.model.model.rotary_emb.cos_sin
    cache = bare.caches[0]
    parts = []
    for start, end in (
        (0, 40),
        (40, _LENGTH - 1),
        (_LENGTH - 1, _LENGTH),
    ):  # two chunks and one decoded token
        batch = bare.batch([(0, [0] * (end - start))])
        parts.append(attention(x[start:end], batch, cos_sin, cache))
    assert_close(torch.cat(parts), expected, tiny)
    slots = [bare._table(0)[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(_LENGTH)]
    for name, stored, wanted in (("keys", cache.k, keys), ("values", cache.v, values)):
        lying = stored.transpose(1, 2).flatten(0, 1)[slots]
        assert_close(lying, wanted, f"{tiny}: {name}")


def _by_transformers(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output [T, D], keys as they are attended to and values [T, M, H] of the first layer's attention."""
    from transformers import DynamicCache

    cache = DynamicCache()
    rotary = model.model.rotary_emb(x[None], torch.arange(len(x))[None])
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)[None, None]
    with torch.inference_mode():
        output, _ = model.model.layers[0].self_attn(
            x[None], position_embeddings=rotary, attention_mask=mask, past_key_values=cache
        )
    layer = cache.layers[0]
    return output[0], layer.keys[0].transpose(0, 1), layer.values[0].transpose(0, 1)


def _facts(subject: Subject, **fields: Any) -> dict[str, TechniqueFact]:
    return {fact.name: fact for fact in subject.plugin().techniques(Qwen3Config(**fields))}


def test_what_is_said_of_attention_techniques(subject: Subject) -> None:
    facts = _facts(subject)
    assert {name: fact.status for name, fact in facts.items() if fact.category == "attention"} == {
        "FlashAttention 2 (tiled online softmax)": "active",
        "sparse attention": "dormant",
        "paged attention": "active",
        "sliding-window attention": "dormant",
        "multi-query / grouped-query attention": "active",
    }
    assert "16 heads share 8 KV heads" in facts["multi-query / grouped-query attention"].reason
    off = _facts(subject, use_flash_attention_2=False, use_paged_attention=False)
    assert off["FlashAttention 2 (tiled online softmax)"].status == "dormant"
    assert off["paged attention"].reason == "use_paged_attention is off"
    mha = _facts(subject, num_key_value_heads=16)
    assert mha["multi-query / grouped-query attention"].status == "not applicable"
    assert all(fact.reason for fact in facts.values())
