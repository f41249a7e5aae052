"""Layers that remember in a state of one size: the gated delta rule and what goes with it, in torch and in C++.

Shape letters: T tokens, S sequences, C channels, W taps of the convolution, L tokens of one sequence, c tokens of a
chunk, A sequences with one token each, N value heads, M key heads, K key size, V value size.

A state is read and written by slot. A sequence that begins (`Spans`) starts from zeros, whatever its slot holds. The
last rows of a sequence may be drafts: they are computed from the state that the rows before them leave, and change
nothing that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops import native
from inference_pio.ops.dispatch import serves

CHUNK = 64
_FEW, _ANY = 8, 2**62
_EPS = 1e-6  # of the L2 norm, as in the library of the rule's authors (flash-linear-attention, l2norm)


class _Inputs(NamedTuple):
    """What the rule takes of each token, for value heads and in float32: tokens first, heads second."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor

    def at(self, rows: Tensor | slice) -> _Inputs:
        return _Inputs(*(x[rows] for x in self))


class Longer(NamedTuple):
    """Rows start to end belong to one sequence; those from `kept` on are drafts."""

    start: int
    end: int
    slot: int
    begins: bool
    kept: int


class Single(NamedTuple):
    """Sequences with one token, computed at once: rows, slots and whether each goes on from a state, all [A]."""

    rows: Tensor
    slots: Tensor
    goes_on: Tensor


@dataclass(frozen=True)
class Spans:
    """Which rows of a step belong to which state; made once per step, for all layers.

    A sequence whose first row has position 0 begins. Of each the last `num_drafts` rows, never all, are drafts.
    query_start int32 [S + 1], positions int64 [T], state_slots int64 [S] and num_drafts int32 [S] (None: there are
    none) are as a batch has them. Native kernels read them while they run; so a step of short sequences looks into none
    of them before, and may be recorded.
    """

    query_start: Tensor
    positions: Tensor
    state_slots: Tensor
    max_query_len: int
    num_drafts: Tensor | None = None

    @property
    def most(self) -> int:
        """Tokens up to which native kernels take a sequence, token by token."""
        return _ANY if self.max_query_len <= _FEW else _FEW

    @cached_property
    def _every(self) -> tuple[Longer, ...]:
        bounds, slots = self.query_start.tolist(), self.state_slots.tolist()
        begins = (self.positions[self.query_start[:-1].long()] == 0).tolist()
        drafts = [0] * len(slots) if self.num_drafts is None else self.num_drafts.tolist()
        return tuple(
            Longer(start, end, slot, fresh, end - guessed)
            for (start, end), slot, fresh, guessed in zip(
                pairwise(bounds), slots, begins, drafts, strict=True
            )
        )

    @cached_property
    def drafts(self) -> Tensor | None:
        """The rows that are drafts, int64, in order; None where none is."""
        if self.num_drafts is None:
            return None
        rows = [row for span in self._every for row in range(span.kept, span.end)]
        return torch.tensor(rows, dtype=torch.int64, device=self.positions.device)

    def longer_than(self, most: int) -> tuple[Longer, ...]:
        if self.max_query_len <= most:
            return ()
        return tuple(span for span in self._every if span.end - span.start > most)

    @cached_property
    def single(self) -> Single:
        chosen = [index for index, span in enumerate(self._every) if span.end - span.start == 1]
        at_A = torch.tensor(chosen, dtype=torch.int64, device=self.positions.device)
        rows_A = self.query_start[at_A].long()
        return Single(rows_A, self.state_slots[at_A], self.positions[rows_A] > 0)


def going_on(slot: int, count: int, device: torch.device) -> Spans:
    """All of a step's `count` rows belong to one sequence that has begun before."""
    bounds = torch.tensor((0, count), dtype=torch.int32, device=device)
    later = torch.ones(count, dtype=torch.int64, device=device)
    return Spans(bounds, later, torch.tensor((slot,), device=device), count)


def causal_conv(x_TC: Tensor, weight_CW: Tensor, state: Tensor, where: Spans) -> Tensor:
    """silu(Σ_w weight[c, w] · x[t - W + 1 + w, c]), [T, C] in x's dtype: each channel sees its own last W inputs.

    state is float32 [slots, W - 1, C]: the inputs before the first one of this step, which it replaces by the last
    ones that are no drafts. Computed in float32, summed in the order of w.
    """
    taps = weight_CW.float()
    if serves(x_TC, "attention"):
        rows = (where.query_start, where.positions, where.state_slots, where.num_drafts, where.most)
        out_TC: Tensor = native.call("causal_conv", x_TC, taps.contiguous(), state, *rows)
        return _conv_longer(out_TC, x_TC, taps, state, where.longer_than(where.most))
    out_TC = torch.empty_like(x_TC)
    rows_A, slots_A, goes_on_A = where.single
    if len(rows_A):
        before = state[slots_A].where(goes_on_A[:, None, None], 0.0)
        window = torch.cat((before, x_TC[rows_A, None].float()), dim=1)
        out_TC[rows_A] = _convolve(window, taps.unbind(dim=1), 1)[:, 0].to(x_TC.dtype)
        state[slots_A] = window[:, 1:]
    return _conv_longer(out_TC, x_TC, taps, state, where.longer_than(1))


def decay_and_rate(a_TN: Tensor, b_TN: Tensor, a_log_N: Tensor, dt_bias_N: Tensor) -> tuple[Tensor, Tensor]:
    """(g, beta) in float32: g = -exp(a_log) · softplus(a + dt_bias), beta = sigmoid(b).

    g is the logarithm of the share of the state that a token keeps, beta how far it corrects what its key reads
    (Yang et al. 2025, "Gated Delta Networks", section 3; the parametrisation of g is Mamba2's).
    """
    if serves(a_TN, "attention"):
        made: tuple[Tensor, Tensor] = native.call(
            "decay_and_rate", a_TN, b_TN, a_log_N.float(), dt_bias_N.float()
        )
        return made
    return -a_log_N.float().exp() * F.softplus(a_TN.float() + dt_bias_N.float()), b_TN.float().sigmoid()


def gated_delta_rule(
    q_TMK: Tensor,
    k_TMK: Tensor,
    v_TNV: Tensor,
    g_TN: Tensor,
    beta_TN: Tensor,
    state: Tensor,
    where: Spans,
    chunk: int = CHUNK,
) -> Tensor:
    """o_t = S_tᵀ q_t with S_t = e^g (I - beta k kᵀ) S_(t-1) + beta k vᵀ, [T, N, V] float32 (Yang et al. 2025, eq. 10).

    q and k are brought to length 1 first, q then divided by √K. Each key head serves N / M value heads in a row. state
    is float32 [slots, N, K, V], read before and written after the last row that is no draft. Sequences with one token,
    natively with a few, take the rule as it stands; longer ones are computed by chunks, in matrix products: the same up
    to rounding, for any chunk.
    """
    inputs = (q_TMK, k_TMK, v_TNV, g_TN.float(), beta_TN.float())
    if serves(q_TMK, "attention"):
        rows = (where.query_start, where.positions, where.state_slots, where.num_drafts, where.most)
        out_TNV: Tensor = native.call("gated_delta_rule", *inputs, state, *rows, _EPS)
        longer = where.longer_than(where.most)
        return _rule_longer(out_TNV, _for_value_heads(*inputs), state, longer, chunk) if longer else out_TNV
    out_TNV = v_TNV.new_empty(v_TNV.shape, dtype=torch.float32)
    prepared = _for_value_heads(*inputs)
    rows_A, slots_A, goes_on_A = where.single
    if len(rows_A):
        before = state[slots_A].where(goes_on_A[:, None, None, None], 0.0)
        out_TNV[rows_A], state[slots_A] = _one_token(prepared.at(rows_A), before)
    return _rule_longer(out_TNV, prepared, state, where.longer_than(1), chunk)


def _conv_longer(
    out_TC: Tensor, x_TC: Tensor, taps_CW: Tensor, state: Tensor, longer: tuple[Longer, ...]
) -> Tensor:
    width = taps_CW.shape[1] - 1
    for start, end, slot, begins, kept in longer:
        before = torch.zeros_like(state[slot]) if begins else state[slot]
        window = torch.cat((before, x_TC[start:end].float()))
        out_TC[start:end] = _convolve(window, taps_CW.unbind(dim=1), end - start).to(x_TC.dtype)
        state[slot] = window[kept - start : kept - start + width]
    return out_TC


def _rule_longer(
    out_TNV: Tensor, inputs: _Inputs, state: Tensor, longer: tuple[Longer, ...], chunk: int
) -> Tensor:
    for start, end, slot, begins, kept in longer:
        matrix_NKV = torch.zeros_like(state[slot]) if begins else state[slot]
        for piece in (*_pieces(start, kept, chunk), *_pieces(kept, end, chunk)):
            out_NcV, matrix_NKV = _one_chunk(inputs.at(piece), matrix_NKV)
            out_TNV[piece] = out_NcV.transpose(0, 1)
            if piece.stop == kept:
                state[slot] = matrix_NKV
    return out_TNV


def _for_value_heads(q_TMK: Tensor, k_TMK: Tensor, v_TNV: Tensor, g_TN: Tensor, beta_TN: Tensor) -> _Inputs:
    q_TMK, k_TMK = _normalised(q_TMK) * q_TMK.shape[-1] ** -0.5, _normalised(k_TMK)
    group = v_TNV.shape[1] // k_TMK.shape[1]
    q_TNK, k_TNK = (x.repeat_interleave(group, dim=1) for x in (q_TMK, k_TMK))
    return _Inputs(q_TNK, k_TNK, v_TNV.float(), g_TN, beta_TN)


def _convolve(window: Tensor, taps: tuple[Tensor, ...], count: int) -> Tensor:
    """The last `count` outputs of window [..., count + W - 1, C]."""
    total = window[..., :count, :] * taps[0]
    for w, tap_C in enumerate(taps[1:], 1):
        total = total + window[..., w : w + count, :] * tap_C
    return F.silu(total)


def _normalised(x: Tensor) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + _EPS)


def _pieces(start: int, end: int, chunk: int) -> Iterator[slice]:
    return (slice(first, min(first + chunk, end)) for first in range(start, end, chunk))


def _one_token(inputs: _Inputs, before: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [A, N, V] and states [A, N, K, V] behind one token of each sequence."""
    q_ANK, k_ANK, v_ANV, g_AN, beta_AN = inputs
    kept = before * g_AN.exp()[..., None, None]
    read_ANV = (k_ANK[..., None, :] @ kept).squeeze(-2)
    after = kept + k_ANK[..., None] * (beta_AN[..., None] * (v_ANV - read_ANV))[..., None, :]
    return (q_ANK[..., None, :] @ after).squeeze(-2), after


def _one_chunk(inputs: _Inputs, before_NKV: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [N, c, V] and the state [N, K, V] behind c tokens (Yang et al. 2025, section 3.3).

    With G_i the sum of g up to i, each token writes k_i u_iᵀ into the state, where the u of all tokens solve
    u_i = beta_i (v_i - e^(G_i) S₀ᵀ k_i - Σ_(j<i) e^(G_i - G_j) (k_j · k_i) u_j): one triangular system for the chunk.
    """
    q_NcK, k_NcK, v_NcV, g_Nc, beta_Nc = (x.transpose(0, 1) for x in inputs)
    total_Nc = g_Nc.cumsum(dim=-1)
    # exp(G_i - G_j) for j ≤ i; above the diagonal the exponent could be large, and is not wanted.
    later = torch.ones(g_Nc.shape[-1], g_Nc.shape[-1], dtype=torch.bool, device=g_Nc.device).triu(1)
    decay_Ncc = (total_Nc[..., None] - total_Nc[..., None, :]).masked_fill(later, float("-inf")).exp()
    since_Nc1, beta_Nc1 = total_Nc.exp()[..., None], beta_Nc[..., None]
    system = beta_Nc1 * (k_NcK @ k_NcK.mT) * decay_Ncc
    wanted = beta_Nc1 * (v_NcV - since_Nc1 * (k_NcK @ before_NKV))
    # What stands on the diagonal of the system is not read: `unitriangular` takes ones.
    u_NcV = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    out_NcV = since_Nc1 * (q_NcK @ before_NKV) + ((q_NcK @ k_NcK.mT) * decay_Ncc) @ u_NcV
    until_Nc1 = (total_Nc[:, -1:] - total_Nc).exp()[..., None]
    after = before_NKV * total_Nc[:, -1, None, None].exp() + (k_NcK * until_Nc1).mT @ u_NcV
    return out_NcV, after
