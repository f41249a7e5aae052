"""Rotary tables against Transformers', for heads of several sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from inference_pio import ops
from inference_pio.config.rope import RopeConfig


@pytest.mark.parametrize("head_dim", [8, 64, 96])
@pytest.mark.parametrize("theta", [10_000.0, 1_000_000.0])
def test_table_is_transformers_table(head_dim: int, theta: float) -> None:
    rope = {"rope_type": "default", "rope_theta": theta}
    config = LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, rope_parameters=rope)
    rotary = LlamaRotaryEmbedding(config)
    frequencies = ops.inverse_frequencies(theta, head_dim)
    torch.testing.assert_close(frequencies, rotary.inv_freq, rtol=1e-6, atol=0)
    cos, sin = rotary(torch.zeros(1), torch.arange(300)[None])
    expected = torch.cat((cos[0, :, : head_dim // 2], sin[0, :, : head_dim // 2]), dim=-1)
    table = ops.cos_sin_table(frequencies, 300)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, expected, rtol=0, atol=2e-5)
    assert torch.equal(ops.cos_sin_table(frequencies, 300, 1.25), table * 1.25)
    assert torch.equal(ops.rotary_table(RopeConfig(theta), head_dim, 300), table)


YARN = {
    # Qwen2.5's and Qwen3's recipe at its real size.
    "qwen": (128, {"rope_theta": 1_000_000.0, "factor": 4.0, "original_max_position_embeddings": 32768}),
    "short": (16, {"rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}),
    "in detail": (
        64,
        {
            "rope_theta": 10_000.0,
            "factor": 7.5,
            "original_max_position_embeddings": 1024,
            "beta_fast": 16.0,
            "beta_slow": 0.5,
        },
    ),
    # Both borders are the first pair: nothing grows between them.
    "borders meet": (64, {"rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 5}),
    "nothing to do": (64, {"rope_theta": 10_000.0, "factor": 1.0, "original_max_position_embeddings": 1024}),
}


@pytest.mark.parametrize("name", YARN)
def test_yarn_is_transformers_yarn(name: str) -> None:
    head_dim, rope = YARN[name]
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=int(rope["factor"] * rope["original_max_position_embeddings"]),
        rope_parameters={"rope_type": "yarn", **rope},
    )
    rotary = LlamaRotaryEmbedding(config)
    betas = {key: rope[key] for key in ("beta_fast", "beta_slow") if key in rope}
    found = ops.yarn_frequencies(
        rope["rope_theta"], head_dim, rope["factor"], rope["original_max_position_embeddings"], **betas
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, rotary.inv_freq, rtol=1e-6, atol=0)
    assert ops.yarn_attention_factor(rope["factor"]) == pytest.approx(rotary.attention_scaling, rel=1e-7)
    stated = RopeConfig(
        rope["rope_theta"], "yarn", rope["factor"], rope["original_max_position_embeddings"], **betas
    )
    for chosen in (None, 1.3):
        scale = chosen or rotary.attention_scaling
        table = ops.rotary_table(replace(stated, attention_factor=chosen), head_dim, 50)
        torch.testing.assert_close(table, ops.cos_sin_table(found, 50, scale), rtol=1e-6, atol=1e-7)
    slowed = ops.inverse_frequencies(rope["rope_theta"], head_dim) / found
    assert slowed.min() == pytest.approx(1)
    assert slowed.max() == pytest.approx(rope["factor"])
