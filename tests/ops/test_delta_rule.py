"""The gated delta rule and what stands around it: against Transformers, and against themselves however work is cut."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextRMSNormGated,
    causal_conv1d_fn,
    torch_chunk_gated_delta_rule,
    torch_recurrent_gated_delta_rule,
)

from inference_pio import ops

M, N, K, V, C, SLOTS = 2, 6, 16, 12, 10, 5
RULES = pytest.mark.parametrize("theirs", [torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule])


class Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor

    def rows(self, start: int, end: int) -> Inputs:
        return Inputs(*(x[start:end] for x in self))


def inputs(tokens: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Inputs:
    rng = torch.Generator().manual_seed(1000 * seed + tokens)
    q, k = (torch.randn(tokens, M, K, generator=rng).to(dtype) for _ in range(2))
    v = torch.randn(tokens, N, V, generator=rng).to(dtype)
    g, beta = -torch.rand(tokens, N, generator=rng) * 0.8, torch.rand(tokens, N, generator=rng)
    g[::7] = -30.0  # now and then everything is forgotten
    return Inputs(q, k, v, g, beta)


def where(pieces: list[tuple[int, int, int]]) -> ops.Spans:
    """Of (slot, tokens before, tokens now) each."""
    starts, positions = [0], []
    for _, before, now in pieces:
        starts.append(starts[-1] + now)
        positions += range(before, before + now)
    slots = torch.tensor([slot for slot, _, _ in pieces])
    return ops.spans(torch.tensor(starts, dtype=torch.int32), torch.tensor(positions), slots)


def garbage(*shape: int) -> Tensor:
    return torch.full((SLOTS, *shape), torch.nan)


def in_one(x: Inputs, chunk: int = ops.DELTA_CHUNK) -> tuple[Tensor, Tensor]:
    """Outputs and the state behind them, of one sequence in one step."""
    state = garbage(N, K, V)
    out = ops.gated_delta_rule(*x, state, where([(3, 0, len(x.q))]), chunk)
    return out, state[3]


@RULES
@pytest.mark.parametrize("tokens", [2, 63, 64, 65, 200])
def test_rule_is_transformers(theirs, tokens):
    x = inputs(tokens)
    out, state = in_one(x)
    want, their_state = theirs(
        *(part[None] for part in x), output_final_state=True, use_qk_l2norm_in_kernel=True
    )
    torch.testing.assert_close(out, want[0], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(state, their_state[0], rtol=1e-4, atol=2e-5)


@RULES
def test_rule_goes_on_from_a_state_as_transformers_does(theirs):
    x, y = inputs(70), inputs(33, seed=1)
    state = garbage(N, K, V)
    ops.gated_delta_rule(*x, state, where([(2, 0, 70)]))
    before = state[2].clone()
    out = ops.gated_delta_rule(*y, state, where([(2, 70, 33)]))
    want, after = theirs(
        *(part[None] for part in y),
        initial_state=before[None],
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    torch.testing.assert_close(out, want[0], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(state[2], after[0], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("chunk", [2, 5, 16, 64, 1000])
def test_chunks_of_any_size_are_the_rule_token_by_token(chunk):
    x = inputs(150)
    state = garbage(N, K, V)
    steps = [ops.gated_delta_rule(*x.rows(t, t + 1), state, where([(3, t, 1)])) for t in range(150)]
    out, after = in_one(x, chunk)
    torch.testing.assert_close(out, torch.cat(steps), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(after, state[3], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("cuts", [[1], [64], [63, 1, 70], [1, 1, 1, 2, 3, 100], [149]])
def test_a_prompt_cut_into_steps(cuts):
    x = inputs(150)
    state, parts, first = garbage(N, K, V), [], 0
    for count in [*cuts, 150 - sum(cuts)]:
        parts.append(ops.gated_delta_rule(*x.rows(first, first + count), state, where([(1, first, count)])))
        first += count
    out, after = in_one(x)
    torch.testing.assert_close(torch.cat(parts), out, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(state[1], after, rtol=1e-4, atol=2e-5)


def test_sequences_of_one_step_do_not_meet():
    """Some begin, some go on, with one token or many; slots in no order, one that nobody names stays as it is."""
    texts = [inputs(length, seed) for seed, length in enumerate((1, 90, 6, 40))]
    before, slots = (0, 25, 5, 39), (4, 0, 2, 1)
    state = garbage(N, K, V)
    for text, slot, begun in zip(texts, slots, before, strict=True):
        if begun:
            ops.gated_delta_rule(*text.rows(0, begun), state, where([(slot, 0, begun)]))
    rest = [text.rows(begun, len(text.q)) for text, begun in zip(texts, before, strict=True)]
    step = Inputs(*(torch.cat(parts) for parts in zip(*rest, strict=True)))
    pieces = [(slot, begun, len(x.q)) for slot, begun, x in zip(slots, before, rest, strict=True)]
    out = ops.gated_delta_rule(*step, state, where(pieces)).split([len(x.q) for x in rest])
    for text, slot, begun, found in zip(texts, slots, before, out, strict=True):
        alone, after = in_one(text)
        torch.testing.assert_close(found, alone[begun:], rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(state[slot], after, rtol=1e-4, atol=2e-5)
    assert state[3].isnan().all()


@pytest.mark.parametrize(("tokens", "drafts"), [(2, 1), (8, 7), (80, 3), (200, 70)])
def test_drafts_are_computed_and_leave_no_trace(tokens, drafts):
    """Beside a sequence with one token and one that has no drafts."""
    x, kept = inputs(tokens), tokens - drafts
    rng = torch.Generator().manual_seed(0)
    conv_x, weight = torch.randn(tokens + 4, C, generator=rng), torch.randn(C, 4, generator=rng)
    others = inputs(4, seed=9)
    step = Inputs(*(torch.cat(parts) for parts in zip(others.rows(0, 1), x, others.rows(1, 4), strict=True)))
    places = ops.spans(
        torch.tensor([0, 1, 1 + tokens, 4 + tokens], dtype=torch.int32),
        torch.tensor([0, *range(tokens), 0, 1, 2]),
        torch.tensor([4, 1, 0]),
        torch.tensor([0, drafts, 0], dtype=torch.int32),
    )
    assert places.drafts.tolist() == list(range(1 + kept, 1 + tokens))
    state, short = garbage(N, K, V), garbage(3, C)
    out = ops.gated_delta_rule(*step, state, places)[1 : 1 + tokens]
    whole, _ = in_one(x)
    torch.testing.assert_close(out, whole, rtol=1e-4, atol=2e-5)
    _, after = in_one(x.rows(0, kept))
    torch.testing.assert_close(state[1], after, rtol=1e-4, atol=2e-5)
    mixed = ops.causal_conv(conv_x, weight, short, places)[1 : 1 + tokens]
    own, want = conv_x[1 : 1 + tokens], garbage(3, C)
    torch.testing.assert_close(mixed, ops.causal_conv(own, weight, want, where([(1, 0, tokens)])))
    ops.causal_conv(own[:kept], weight, want, where([(2, 0, kept)]))
    assert torch.equal(short[1], want[2])
    assert torch.equal(short[0], conv_x[-3:])


def test_steep_decays_over_a_whole_chunk_stay_finite():
    x = inputs(130)._replace(g=torch.full((130, N), -60.0))
    out, state = in_one(x)
    assert out.isfinite().all()
    assert state.isfinite().all()


def test_half_precision_is_computed_in_float32():
    x = inputs(80, dtype=torch.bfloat16)
    out, _ = in_one(x)
    exact, _ = in_one(Inputs(*(part.float() for part in x)))
    assert torch.equal(out, exact)


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("cuts", [[], [1], [1, 1, 1, 1, 1], [2, 3], [20, 1, 3]])
def test_convolution_is_transformers(width, cuts):
    rng = torch.Generator().manual_seed(width)
    x, weight = torch.randn(30, C, generator=rng), torch.randn(C, width, generator=rng)
    want = causal_conv1d_fn(x.T[None], weight, activation="silu")[0].T
    state, parts, first = garbage(width - 1, C), [], 0
    for count in [*cuts, 30 - sum(cuts)]:
        rows = x[first : first + count]
        parts.append(ops.causal_conv(rows, weight, state, where([(2, first, count)])))
        first += count
    torch.testing.assert_close(torch.cat(parts), want, rtol=1e-5, atol=1e-6)
    assert torch.equal(state[2], x[30 - (width - 1) :])
    whole = ops.causal_conv(x, weight, garbage(width - 1, C), where([(0, 0, 30)]))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-7)


def test_convolution_of_a_ragged_step():
    rng = torch.Generator().manual_seed(0)
    weight, state = torch.randn(C, 4, generator=rng), garbage(3, C)
    texts = [torch.randn(length, C, generator=rng) for length in (1, 9, 2, 5)]
    ops.causal_conv(texts[1][:8], weight, state, where([(0, 0, 8)]))
    ops.causal_conv(texts[3][:2], weight, state, where([(4, 0, 2)]))
    step = torch.cat([texts[0], texts[1][8:], texts[2], texts[3][2:]])
    out = ops.causal_conv(step, weight, state, where([(3, 0, 1), (0, 8, 1), (1, 0, 2), (4, 2, 3)]))
    alone = [ops.causal_conv(text, weight, garbage(3, C), where([(0, 0, len(text))])) for text in texts]
    want = torch.cat([alone[0], alone[1][8:], alone[2], alone[3][2:]])
    torch.testing.assert_close(out, want, rtol=1e-6, atol=1e-7)
    assert state[2].isnan().all()


def test_decay_and_rate():
    """Against the formulas of the model's code, at numbers where a decay in half precision would be 0 or 1."""
    a, b = torch.tensor([[-20.0, 0.0, 3.0]]), torch.tensor([[-1.0, 0.0, 4.0]])
    a_log, dt_bias = torch.tensor([2.5, -4.0, 0.0]), torch.tensor([1.0, 0.5, -2.0])
    g, beta = ops.decay_and_rate(a.bfloat16(), b.bfloat16(), a_log, dt_bias)
    want = -(a_log.double().exp() * (1 + (a + dt_bias).double().exp()).log())
    torch.testing.assert_close(g.double(), want, rtol=1e-5, atol=0)
    assert (g < 0).all()
    torch.testing.assert_close(beta, 1 / (1 + (-b).exp()))
    assert g.dtype == beta.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gated_norm_is_transformers(dtype):
    rng = torch.Generator().manual_seed(0)
    x, gate = (torch.randn(7, N, V, generator=rng).to(dtype) for _ in range(2))
    theirs = Qwen3NextRMSNormGated(V, eps=1e-6)
    theirs.weight.data = torch.randn(V, generator=rng)
    with torch.inference_mode():
        found = ops.gated_rms_norm(x.float(), gate, theirs.weight, 1e-6)
        want = theirs(x, gate)
    assert found.dtype == dtype
    torch.testing.assert_close(found, want, rtol=3 * torch.finfo(dtype).eps, atol=1e-6)
