"""Qwen3-MoE's attention module against Transformers' layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference_pio.conformance.bare_model import BLOCK_SIZE, BareModel
from inference_pio.conformance.numbers import assert_close
from inference_pio.conformance.subject import Subject
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig
from inference_pio.models.qwen3_moe.tests.case import TINY
from inference_pio.plugin.facts import TechniqueFact

_LENGTH = 2 * BLOCK_SIZE + 9


@pytest.mark.parametrize("tiny", ["experts", "coder", "every-expert", "yarn"])
def test_one_layer(subject: Subject, tiny: str) -> None:
    """In two chunks and a decoded token: the output, and the normalised, turned keys that stay in the cache."""
    x = torch.randn(_LENGTH, TINY[tiny]["hidden_size"], generator=torch.Generator().manual_seed(5))
    expected, keys, values = _by_transformers(subject.reference(tiny).model, x)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    attention, cos_sin = bare.model.model.layers[0].self_attn, bare.model.model.rotary_emb.cos_sin
    parts, begin = [], 0
    for end in (25, _LENGTH - 1, _LENGTH):
        batch = bare.batch([(0, [0] * (end - begin))])
        parts.append(attention(x[begin:end], batch, cos_sin, bare.caches[0]))
        begin = end
    assert_close(torch.cat(parts), expected, tiny)
    table = bare._table(0)
    slots = [table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(_LENGTH)]
    for stored, wanted in ((bare.caches[0].k, keys), (bare.caches[0].v, values)):
        assert_close(stored.transpose(1, 2).flatten(0, 1)[slots], wanted, f"{tiny}: cache")


def _by_transformers(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output [T, D], keys and values [T, M, H] of the first layer's attention."""
    from transformers import DynamicCache

    cache = DynamicCache()
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)[None, None]
    turned = model.model.rotary_emb(x[None], torch.arange(len(x))[None])
    with torch.inference_mode():
        output, _ = model.model.layers[0].self_attn(
            x[None], position_embeddings=turned, attention_mask=mask, past_key_values=cache
        )
    kept = cache.layers[0]
    return output[0], kept.keys[0].transpose(0, 1), kept.values[0].transpose(0, 1)


def _facts(subject: Subject, **fields: Any) -> dict[str, TechniqueFact]:
    facts = subject.plugin().techniques(Qwen3MoeConfig(**fields))
    return {fact.name: fact for fact in facts if fact.category == "attention"}


def test_what_is_said_of_attention_techniques(subject: Subject) -> None:
    flash, grouped = "FlashAttention 2 (tiled online softmax)", "multi-query / grouped-query attention"
    facts = _facts(subject)
    assert {name: fact.status for name, fact in facts.items()} == {
        flash: "active",
        "sparse attention": "dormant",
        "paged attention": "active",
        "sliding-window attention": "dormant",
        grouped: "active",
    }
    assert "32 heads share 4 KV heads" in facts[grouped].reason
    off = _facts(subject, use_flash_attention_2=False, use_paged_attention=False, num_key_value_heads=32)
    assert {off[name].status for name in (flash, "paged attention")} == {"dormant"}
    assert off[grouped].status == "not applicable"
