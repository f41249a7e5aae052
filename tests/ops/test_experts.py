"""Experts against Transformers' own, and against themselves in other company."""

from __future__ import annotations

import torch
from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from inference_pio import ops

E, D, I, K = 6, 32, 24, 3


def case(tokens: int) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(tokens)
    gate_up, down = torch.randn(E, 2 * I, D, generator=rng), torch.randn(E, D, I, generator=rng)
    x = torch.randn(tokens, D, generator=rng)
    weights, chosen = torch.rand(tokens, E, generator=rng).topk(K)
    return x, gate_up, down, chosen, weights


def test_experts_are_transformers_experts() -> None:
    x, gate_up, down, chosen, weights = case(17)
    config = Qwen3MoeConfig(hidden_size=D, moe_intermediate_size=I, num_experts=E, num_experts_per_tok=K)
    theirs = Qwen3MoeExperts(config)
    theirs.gate_up_proj.data, theirs.down_proj.data = gate_up, down
    want = theirs(x, chosen, weights).detach()
    torch.testing.assert_close(ops.experts(x, gate_up, down, chosen, weights), want, rtol=1e-5, atol=1e-4)


def test_an_expert_that_nobody_chose_is_not_read() -> None:
    x, gate_up, down, chosen, weights = case(5)
    chosen[:] = torch.tensor([0, 1, 3])
    gate_up[2] = torch.nan
    assert ops.experts(x, gate_up, down, chosen, weights).isfinite().all()


def test_no_token_at_all() -> None:
    """A step that ends within a prompt needs no row of the last layer."""
    x, gate_up, down, chosen, weights = case(5)
    assert ops.experts(x[:0], gate_up, down, chosen[:0], weights[:0]).shape == (0, D)


def test_a_token_alone_gives_what_it_gives_in_company() -> None:
    x, gate_up, down, chosen, weights = case(9)
    whole = ops.experts(x, gate_up, down, chosen, weights)
    for t in range(9):
        at = slice(t, t + 1)
        alone = ops.experts(x[at], gate_up, down, chosen[at], weights[at])
        torch.testing.assert_close(alone, whole[at], rtol=1e-5, atol=1e-4)
