"""Rotary tables against Transformers', for heads of several sizes."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from inference_pio import ops


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
