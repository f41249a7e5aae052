"""Mistral's attention module against Transformers' layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference_pio.conformance.bare_model import BLOCK_SIZE, BareModel
from inference_pio.conformance.numbers import assert_close
from inference_pio.conformance.subject import Subject
from inference_pio.plugin.facts import TechniqueFact
from inference_pio_mistral.config import MistralConfig
from inference_pio_mistral.tests.case import TINY

_LENGTH = 3 * BLOCK_SIZE + 5


@pytest.mark.parametrize("tiny", ["window", "no-window", "narrow", "wide-heads", "thirds"])
def test_one_layer(subject: Subject, tiny: str) -> None:
    """Output of the first attention module, and the keys and values it leaves in the cache."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_LENGTH, TINY[tiny]["hidden_size"], generator=generator)
    window = TINY[tiny]["sliding_window"]
    expected, keys, values = _by_transformers(subject.reference(tiny).model, x, window)
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


def _by_transformers(
    model: Any, x: torch.Tensor, window: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output [T, D], rotated keys and values [T, M, H] of the first layer's attention."""
    from transformers import DynamicCache

    cache = DynamicCache()
    rotary = model.model.rotary_emb(x[None], torch.arange(len(x))[None])
    position = torch.arange(len(x))
    behind = position[:, None] - position[None, :]
    hidden = (behind < 0) | (behind >= (window or len(x)))
    mask = torch.zeros(len(x), len(x)).masked_fill(hidden, float("-inf"))[None, None]
    with torch.inference_mode():
        output, _ = model.model.layers[0].self_attn(
            x[None], position_embeddings=rotary, attention_mask=mask, past_key_values=cache
        )
    layer = cache.layers[0]
    return output[0], layer.keys[0].transpose(0, 1), layer.values[0].transpose(0, 1)


def _facts(subject: Subject, **fields: Any) -> dict[str, TechniqueFact]:
    return {fact.name: fact for fact in subject.plugin().techniques(MistralConfig(**fields))}


def test_what_is_said_of_attention_techniques(subject: Subject) -> None:
    facts = _facts(subject)
    assert {name: fact.status for name, fact in facts.items() if fact.category == "attention"} == {
        "FlashAttention 2 (tiled online softmax)": "active",
        "sparse attention": "not applicable",
        "paged attention": "active",
        "sliding-window attention": "not applicable",
        "multi-query / grouped-query attention": "active",
    }
    assert "32 heads share 8 KV heads" in facts["multi-query / grouped-query attention"].reason
    off = _facts(subject, use_flash_attention_2=False, use_paged_attention=False)
    assert off["FlashAttention 2 (tiled online softmax)"].status == "dormant"
    assert off["paged attention"].reason == "use_paged_attention is off"
    mha = _facts(subject, num_key_value_heads=32)
    assert mha["multi-query / grouped-query attention"].status == "not applicable"
    windowed = _facts(subject, sliding_window=4096)["sliding-window attention"]
    assert (windowed.status, windowed.exact) == ("active", True)
    assert "a window of 4096 tokens" in windowed.reason
    assert all(fact.reason for fact in facts.values())
