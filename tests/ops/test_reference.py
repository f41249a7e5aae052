"""The references against independent truth: torch's own attention, transformers' norm and rotation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers.masking_utils import sliding_window_overlay
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3MLP, Gemma3RMSNorm
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)
from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextAttention,
    Qwen3NextRotaryEmbedding,
)
from transformers.models.qwen3_next.modeling_qwen3_next import (
    apply_rotary_pos_emb as turned_in_part,
)

from inference_pio.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_is_transformers_norm_bit_for_bit(dtype):
    x, weight = torch.randn(5, 48).to(dtype), torch.randn(48).to(dtype)
    norm = LlamaRMSNorm(48, eps=1e-5)
    norm.weight.data = weight
    assert torch.equal(reference.rms_norm(x, weight, 1e-5), norm(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rms_norm_adds_before_it_normalises(dtype):
    x, residual, weight = (torch.randn(3, 24).to(dtype) for _ in range(3))
    y, total = reference.add_rms_norm(x, residual, weight[0], 1e-5)
    assert torch.equal(total, residual + x)
    assert torch.equal(y, reference.rms_norm(residual + x, weight[0], 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_with_an_offset_is_gemmas_bit_for_bit(dtype):
    x, weight = torch.randn(5, 48).to(dtype), torch.randn(48).to(dtype)
    norm = Gemma3RMSNorm(48, eps=1e-6)
    norm.weight.data = weight
    assert torch.equal(reference.rms_norm(x, weight, 1e-6, 1.0), norm(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_and_mul_is_the_inside_of_transformers_mlp(dtype):
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_attention_heads=2)
    mlp = LlamaMLP(config).to(dtype)
    for layer in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        layer.weight.data = torch.eye(16, dtype=dtype)
    x = torch.randn(4, 16).to(dtype) * 4
    got = reference.silu_and_mul(torch.cat((x, x), dim=-1))
    torch.testing.assert_close(got, mlp(x).detach(), rtol=2 * torch.finfo(dtype).eps, atol=1e-9)


def test_rotation_and_cache_agree_with_transformers():
    heads, kv_heads, size, tokens = 4, 2, 16, 7
    rotary = LlamaRotaryEmbedding(LlamaConfig(hidden_size=heads * size, num_attention_heads=heads))
    positions = torch.randperm(40)[:tokens]
    cos, sin = rotary(torch.zeros(1), torch.arange(40)[None])
    table = torch.cat((cos[0, :, : size // 2], sin[0, :, : size // 2]), dim=-1)
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * size)
    k_cache, v_cache = torch.zeros(5, kv_heads, 8, size), torch.zeros(5, kv_heads, 8, size)
    slots = torch.randperm(40)[:tokens]
    q = reference.rope_and_cache(qkv, positions, table, k_cache, v_cache, slots, heads, kv_heads)

    parts = qkv.view(1, tokens, -1, size).transpose(1, 2).split((heads, kv_heads, kv_heads), dim=1)
    want_q, want_k = apply_rotary_pos_emb(parts[0], parts[1], cos[:, positions], sin[:, positions])
    torch.testing.assert_close(q, want_q[0].transpose(0, 1), rtol=1e-6, atol=1e-6)
    for t, slot in enumerate(slots.tolist()):
        torch.testing.assert_close(k_cache[slot // 8, :, slot % 8], want_k[0, :, t], rtol=1e-6, atol=1e-6)
        assert torch.equal(v_cache[slot // 8, :, slot % 8], parts[2][0, :, t])
    assert int((k_cache.abs().sum((1, 3)) > 0).sum()) == tokens


def test_heads_are_normalised_then_turned_in_part_as_qwen3_next_does():
    config = Qwen3NextConfig(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, partial_rotary_factor=0.25
    )
    attention, rotary = Qwen3NextAttention(config, layer_idx=3), Qwen3NextRotaryEmbedding(config)
    for norm in (attention.q_norm, attention.k_norm):
        norm.weight.data = torch.randn(16)
    positions = torch.randperm(40)[:7]
    cos, sin = rotary(torch.zeros(1), torch.arange(40)[None])
    table = torch.cat((cos[0, :, : cos.shape[2] // 2], sin[0, :, : sin.shape[2] // 2]), dim=-1)
    assert table.shape == (40, 4)
    qkv = torch.randn(7, 8 * 16)
    k_cache, v_cache = torch.zeros(5, 2, 8, 16), torch.zeros(5, 2, 8, 16)
    norms = reference.HeadNorms(
        attention.q_norm.weight.data, attention.k_norm.weight.data, config.rms_norm_eps, offset=1.0
    )
    q = reference.rope_and_cache(qkv, positions, table, k_cache, v_cache, torch.arange(7), 4, 2, norms=norms)

    queries, keys, _ = qkv.view(1, 7, 8, 16).split((4, 2, 2), dim=2)
    want_q, want_k = turned_in_part(
        attention.q_norm(queries).transpose(1, 2),
        attention.k_norm(keys).transpose(1, 2),
        cos[:, positions],
        sin[:, positions],
    )
    torch.testing.assert_close(q, want_q[0].transpose(0, 1).detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(k_cache[0, :, :7], want_k[0].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_tanh_and_mul_is_the_inside_of_transformers_mlp(dtype):
    config = Gemma3TextConfig(hidden_size=16, intermediate_size=16, num_attention_heads=2)
    mlp = Gemma3MLP(config).to(dtype)
    for layer in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        layer.weight.data = torch.eye(16, dtype=dtype)
    x = torch.randn(4, 16).to(dtype) * 4
    got = reference.gelu_tanh_and_mul(torch.cat((x, x), dim=-1))
    torch.testing.assert_close(got, mlp(x).detach(), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("window", [None, 1, 7, 33, 99, 100, 101])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("block_size", [8, 16, 64])
def test_paged_attention_is_torch_attention(make_paged, heads, block_size, window):
    batch = make_paged([1, 5, 33, 20], [70, 5, 100, 21], heads=heads, block_size=block_size)
    got = reference.paged_attention(*batch.call(), window=window)
    for s, length in enumerate(batch.seq_lens.tolist()):
        rows = slice(*batch.query_start[s : s + 2].tolist())
        queries = rows.stop - rows.start
        mask = torch.ones(queries, length, dtype=torch.bool).tril(length - queries)
        if window is not None:
            within = sliding_window_overlay(window)
            positions = torch.arange(length - queries, length)[:, None]
            mask &= within(0, 0, positions, torch.arange(length)[None])
        q, k, v = (x.transpose(0, 1)[None] for x in (batch.q[rows], batch.k[s], batch.v[s]))
        want = F.scaled_dot_product_attention(q, k, v, mask, scale=batch.scale, enable_gqa=True)
        torch.testing.assert_close(got[rows], want[0].transpose(0, 1), rtol=1e-5, atol=1e-6)
