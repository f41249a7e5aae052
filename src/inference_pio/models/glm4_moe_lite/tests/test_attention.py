"""Latent attention against Transformers' layer, in both of its forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference_pio.conformance.bare_model import BLOCK_SIZE, BareModel
from inference_pio.conformance.numbers import assert_close
from inference_pio.conformance.subject import Subject
from inference_pio.models.glm4_moe_lite.attention.flash_attention import prefill_attention
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.tests.case import TINY
from inference_pio.plugin.facts import TechniqueFact

_LENGTH = 3 * BLOCK_SIZE + 5
_FORMS = {"expanded": True, "absorbed": False}


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("tiny", sorted(TINY))
def test_one_layer(subject: Subject, tiny: str, form: str) -> None:
    """Output of the first attention module, and what it leaves in the cache, two chunks and one decoded token."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_LENGTH, TINY[tiny]["hidden_size"], generator=generator)
    expected, rows = _by_transformers(subject.reference(tiny).model, x)
    bare = BareModel(subject.plugin(), subject.checkpoint(tiny))
    attention, cos_sin = bare.model.model.layers[0].self_attn, bare.model.model.rotary_emb.cos_sin
    attention.prefill = prefill_attention(bare.config, lambda queries, length: _FORMS[form])  # noqa: ARG005
    parts = []
    for start, end in ((0, 40), (40, _LENGTH - 1), (_LENGTH - 1, _LENGTH)):
        batch = bare.batch([(0, [0] * (end - start))])
        parts.append(attention(x[start:end], batch, cos_sin, bare.caches[0]))
    assert_close(torch.cat(parts), expected, f"{tiny}, {form}")
    slots = [bare._table(0)[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(_LENGTH)]
    assert_close(bare.caches[0].rows.flatten(0, 1)[slots], rows, f"{tiny}: latents and rotary keys")


def test_norms_of_latents_add_what_transformers_adds(subject: Subject) -> None:
    """Inputs so small that the eps of these norms shows: it is not `rms_norm_eps`."""
    x = torch.randn(20, 64, generator=torch.Generator().manual_seed(1)) * 1e-3
    expected, rows = _by_transformers(subject.reference("low-rank").model, x)
    bare = BareModel(subject.plugin(), subject.checkpoint("low-rank"))
    attention, cos_sin = bare.model.model.layers[0].self_attn, bare.model.model.rotary_emb.cos_sin
    assert_close(attention(x, bare.batch([(0, [0] * 20)]), cos_sin, bare.caches[0]), expected, "output")
    slots = [bare._table(0)[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in range(20)]
    assert_close(bare.caches[0].rows.flatten(0, 1)[slots], rows, "latents and rotary keys")
    assert rows[:, :32].square().mean() < 0.9, "the inputs are too large to show an eps"


def _by_transformers(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [T, D] of the first layer's attention, and what it caches: latents and turned keys side by side."""
    from transformers import DynamicCache

    cache = DynamicCache()
    rotary = model.model.rotary_emb(x[None], torch.arange(len(x))[None])
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)[None, None]
    with torch.inference_mode():
        output, _ = model.model.layers[0].self_attn(
            x[None], position_embeddings=rotary, attention_mask=mask, past_key_values=cache
        )
    layer = cache.layers[0]
    return output[0], torch.cat((layer.keys[0, 0], layer.values[0, 0]), dim=-1)


def test_sequences_of_a_step_take_different_forms(subject: Subject) -> None:
    """A prompt and a sequence with two new tokens in one step: each as it is alone."""
    x = torch.randn(60, 64, generator=torch.Generator().manual_seed(2))
    bare = BareModel(subject.plugin(), subject.checkpoint("low-rank"), sequences=3)
    attention, cos_sin = bare.model.model.layers[0].self_attn, bare.model.model.rotary_emb.cos_sin

    def run(spans: list[tuple[int, int, int]]) -> torch.Tensor:
        batch = bare.batch([(number, [0] * (end - start)) for number, start, end in spans])
        given = torch.cat([x[start:end] for _, start, end in spans])
        made: torch.Tensor = attention(given, batch, cos_sin, bare.caches[0])
        return made

    alone = run([(0, 0, 60)])
    bare.restart()
    run([(1, 0, 50), (2, 0, 58)])
    together = run([(1, 50, 52), (0, 0, 60), (2, 58, 60)])
    for part, expected in zip(together.split([2, 60, 2]), (alone[50:52], alone, alone[58:60]), strict=True):
        assert_close(part, expected, "a sequence in company")


def _facts(subject: Subject, **fields: Any) -> dict[str, TechniqueFact]:
    return {fact.name: fact for fact in subject.plugin().techniques(Glm4MoeLiteConfig(**fields))}


def test_what_is_said_of_attention_techniques(subject: Subject) -> None:
    facts = _facts(subject)
    assert {name: fact.status for name, fact in facts.items() if fact.category == "attention"} == {
        "FlashAttention 2 (tiled online softmax)": "active",
        "sparse attention": "not applicable",
        "paged attention": "active",
        "sliding-window attention": "not applicable",
        "multi-query / grouped-query attention": "active",
    }
    assert "20 heads share one latent of 512" in facts["multi-query / grouped-query attention"].reason
    assert "576 values" in facts["KV-cache compression"].reason
    assert "10240 of keys" in facts["KV-cache compression"].reason
    off = _facts(subject, use_flash_attention_2=False, use_paged_attention=False)
    assert off["FlashAttention 2 (tiled online softmax)"].status == "dormant"
    assert off["paged attention"].reason == "use_paged_attention is off"
    assert all(fact.reason for fact in facts.values())
