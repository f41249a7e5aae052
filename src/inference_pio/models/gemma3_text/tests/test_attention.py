"""Gemma 3's attention module against Transformers' layers of both kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference_pio.conformance.bare_model import BLOCK_SIZE, BareModel
from inference_pio.conformance.numbers import assert_close
from inference_pio.conformance.subject import Subject
from inference_pio.models.gemma3_text.config import FULL, SLIDING, Gemma3TextConfig
from inference_pio.models.gemma3_text.tests.case import TINY
from inference_pio.plugin.facts import TechniqueFact

_LENGTH = 6 * BLOCK_SIZE + 5


@pytest.mark.parametrize(
    ("tiny", "index", "window"),
    [
        ("five-to-one", 0, 24),
        ("five-to-one", 5, None),
        ("in-eighths", 1, 64),
        ("in-eighths", 5, None),
        ("layer-by-layer", 0, None),
        ("layer-by-layer", 2, 7),
        ("untied-multi-head", 0, 1),
    ],
)
def test_one_layer(subject: Subject, tiny: str, index: int, window: int | None) -> None:
    """Output of one attention module, and the keys and values it leaves in the cache."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_LENGTH, TINY[tiny]["hidden_size"], generator=generator)
    expected, keys, values = _by_transformers(subject.reference(tiny).model, x, index, window)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    model = bare.model.model
    attention = model.layers[index].self_attn
    assert attention.attend.window == window
    cos_sin = (model.rotary_full if window is None else model.rotary_sliding).cos_sin
    cache = bare.caches[index]
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
    model: Any, x: torch.Tensor, index: int, window: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output [T, D], rotated keys and values [T, M, H] of one layer's attention, given the mask that it means."""
    kept: list[torch.Tensor] = []

    class Keep:
        def update(self, k: torch.Tensor, v: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
            kept.extend((k, v))
            return k, v

    kind = FULL if window is None else SLIDING
    rotary = model.model.rotary_emb(x[None], torch.arange(len(x))[None], kind)
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
    if window is not None:
        mask += torch.full((len(x), len(x)), float("-inf")).tril(-window)
    with torch.inference_mode():
        output, _ = model.model.layers[index].self_attn(
            x[None], position_embeddings=rotary, attention_mask=mask[None, None], past_key_values=Keep()
        )
    return output[0], kept[0][0].transpose(0, 1), kept[1][0].transpose(0, 1)


def _facts(subject: Subject, **fields: Any) -> dict[str, TechniqueFact]:
    return {fact.name: fact for fact in subject.plugin().techniques(Gemma3TextConfig(**fields))}


def test_what_is_said_of_attention_techniques(subject: Subject) -> None:
    facts = _facts(subject)
    assert {name: fact.status for name, fact in facts.items() if fact.category == "attention"} == {
        "FlashAttention 2 (tiled online softmax)": "active",
        "sparse attention": "dormant",
        "paged attention": "active",
        "sliding-window attention": "active",
        "multi-query / grouped-query attention": "active",
    }
    windows = facts["sliding-window attention"]
    assert windows.exact
    assert windows.reason.startswith("15 of 18 layers see the last 512 positions")
    assert "4 heads share 1 KV heads" in facts["multi-query / grouped-query attention"].reason
    off = _facts(subject, use_flash_attention_2=False, use_paged_attention=False, layer_types=(FULL,) * 18)
    assert off["FlashAttention 2 (tiled online softmax)"].status == "dormant"
    assert off["paged attention"].reason == "use_paged_attention is off"
    assert off["sliding-window attention"].status == "dormant"
    mha = _facts(subject, num_key_value_heads=4)
    assert mha["multi-query / grouped-query attention"].status == "not applicable"
    assert all(fact.reason for fact in facts.values())
