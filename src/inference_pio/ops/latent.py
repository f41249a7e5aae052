"""Latent attention (DeepSeek-AI 2024, DeepSeek-V2, section 2.1): a token is remembered as one row for all heads.

A row holds a latent, from which two up-projections make the keys and values of every head, and beside it one rotary key
that all heads share. The same attention has two forms: *expanded* makes keys and values first, *absorbed* carries the
key's projection over to the query and the value's behind the weighted sum, so that the rows themselves are what a query
meets: with all heads on one key, its multiplications are fewer where few queries meet many rows.

Shape letters: T tokens, S sequences, N heads, C values of a latent, R rotary values, W = C + R values of a row,
P values of a head's key that are made from the latent, H = P + R, V values of a head's value, L tokens of one sequence,
Q of them queries, P positions of a table where it stands in `cos_sin_PR`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops import native
from inference_pio.ops.dispatch import pick, serves
from inference_pio.ops.reference import apply_rope

Attend = Callable[..., Tensor]  # as `paged_attention`
_FEW = 64  # tokens whose products with the up-projections wait for memory


class UpProjections(NamedTuple):
    """What makes the key and value of head n from a latent c: keys[n] · c and values[n] · c.

    [N, P, C] and [N, V, C].
    """

    keys: Tensor
    values: Tensor


class Sequences(NamedTuple):
    """Which rows of a call belong to which sequence, and where its tokens lie: as `paged_attention` takes them.

    block_tables [S, B], query_start [S + 1] and seq_lens [S], int32.
    """

    block_tables: Tensor
    query_start: Tensor
    seq_lens: Tensor
    max_query_len: int
    max_seq_len: int

    def some(self, chosen: list[int]) -> tuple[Tensor, Sequences]:
        """Numbers of the rows of these sequences, and the sequences as a call of their own."""
        starts, lengths = self.query_start.tolist(), self.seq_lens.tolist()
        spans = [range(starts[s], starts[s + 1]) for s in chosen]
        device = self.seq_lens.device
        counts = torch.tensor([0, *map(len, spans)], dtype=torch.int32, device=device)
        rows = torch.tensor([row for span in spans for row in span], device=device)
        here = torch.tensor(chosen, device=device)
        return rows, Sequences(
            self.block_tables[here],
            counts.cumsum(0, dtype=torch.int32),
            self.seq_lens[here],
            max(map(len, spans)),
            max(lengths[s] for s in chosen),
        )


def turn_pairs(x_TNR: Tensor, positions_T: Tensor, cos_sin_PR: Tensor) -> Tensor:
    """Turns the neighbours (x[2i], x[2i + 1]) by the angle of the position, in float32, rounded once.

    Su et al. 2021, eq. 34, as it stands there. What comes out is ordered by halves: the first of every pair, then the
    second of every pair. Queries and keys are ordered alike, so that their products do not change by it. cos_sin as
    `rope_and_cache` takes it.
    """
    cos_T1r, sin_T1r = cos_sin_PR[positions_T].float().unsqueeze(1).chunk(2, dim=-1)
    first, second = x_TNR[..., 0::2].float(), x_TNR[..., 1::2].float()
    turned = (first * cos_T1r - second * sin_T1r, second * cos_T1r + first * sin_T1r)
    return torch.cat(turned, dim=-1).to(x_TNR.dtype)


def turn_tails(x_TNH: Tensor, positions_T: Tensor, cos_sin_PR: Tensor, pairs: bool) -> Tensor:
    """x with the last R values of each head turned: neighbours as `turn_pairs` does it, or the halves of these R."""
    if serves(x_TNH, "attention"):
        y_TNH: Tensor = native.call("turn_tails", x_TNH, positions_T, cos_sin_PR, pairs)
        return y_TNH
    split = [x_TNH.shape[-1] - cos_sin_PR.shape[1], cos_sin_PR.shape[1]]
    still, tail = x_TNH.split(split, dim=-1)
    return torch.cat((still, _turn(tail, positions_T, cos_sin_PR, pairs)), dim=-1)


def _turn(x_TNR: Tensor, positions_T: Tensor, cos_sin_PR: Tensor, pairs: bool) -> Tensor:
    return (turn_pairs if pairs else apply_rope)(x_TNR, positions_T, cos_sin_PR)


def store_latents(
    kv_TW: Tensor,
    norm_C: Tensor,
    eps: float,
    positions_T: Tensor,
    cos_sin_PR: Tensor,
    cache_BKW: Tensor,
    slot_mapping_T: Tensor,
    pairs: bool,
) -> None:
    """Writes a row for each token: the latent under RMSNorm, then the rotary key turned by its position.

    The cache is [blocks, block_size, W] in any floating dtype; a slot is block · block_size + offset. `pairs` as in
    `turn_tails`.
    """
    if serves(kv_TW, "attention") and cache_BKW.dtype in native.DTYPES:
        where = (positions_T, cos_sin_PR, cache_BKW, slot_mapping_T)
        native.call("store_latents", kv_TW, norm_C, eps, *where, pairs)
        return
    latent_TC, key_TR = kv_TW.split([len(norm_C), kv_TW.shape[1] - len(norm_C)], dim=1)
    normed_TC = pick("rms_norm", kv_TW)(latent_TC, norm_C, eps)
    turned_TR = _turn(key_TR.unsqueeze(1), positions_T, cos_sin_PR, pairs).squeeze(1)
    rows_TW = torch.cat((normed_TC, turned_TR), dim=-1)
    cache_BKW.view(-1, rows_TW.shape[1]).index_copy_(0, slot_mapping_T, rows_TW.to(cache_BKW.dtype))


def absorbed_attention(
    q_TNH: Tensor, up: UpProjections, cache_BKW: Tensor, sequences: Sequences, scale: float, attend: Attend
) -> Tensor:
    """softmax(scale · q kᵀ) v, causal, [T, N, V] (eq. 18), without making a key or a value.

    q · (k_up c) = (k_upᵀ q) · c, and Σ w (v_up c) = v_up (Σ w c): attention of queries of W values over rows that are
    keys and values at once, with one key/value head. The rotary part of the weighted sum is not used.
    """
    native_products = (
        serves(q_TNH, "attention") and len(q_TNH) <= _FEW and q_TNH.dtype == up.keys.dtype == torch.float32
    )
    rows = cache_BKW.unsqueeze(1)
    if native_products:
        q_TNW = native.call("absorb_keys", q_TNH.contiguous(), up.keys)
        sum_TNW = attend(q_TNW, rows, rows, *sequences[:3], scale, *sequences[3:])
        o_TNV: Tensor = native.call("raise_values", sum_TNW, up.values)
        return o_TNV
    q_TNP, q_TNR = q_TNH.split([up.keys.shape[1], q_TNH.shape[2] - up.keys.shape[1]], dim=-1)
    q_TNC = torch.bmm(q_TNP.transpose(0, 1), up.keys).transpose(0, 1)
    sum_TNW = attend(torch.cat((q_TNC, q_TNR), dim=-1), rows, rows, *sequences[:3], scale, *sequences[3:])
    sum_NTC = sum_TNW[..., : up.keys.shape[2]].transpose(0, 1)
    return torch.bmm(sum_NTC, up.values.transpose(1, 2)).transpose(0, 1)


def expanded_attention(
    q_TNH: Tensor,
    up: UpProjections,
    cache_BKW: Tensor,
    sequences: Sequences,
    scale: float,
    attend: Attend,
    most_bytes: int,
) -> Tensor:
    """The same from keys and values of every head, sequence by sequence.

    Keys and values stand beside the cache for a moment, of so many heads at once as fit in `most_bytes`, one at least.
    """
    o_TNV = q_TNH.new_empty(*q_TNH.shape[:2], up.values.shape[1])
    starts = sequences.query_start.tolist()
    for s, length in enumerate(sequences.seq_lens.tolist()):
        blocks = sequences.block_tables[s, : -(-length // cache_BKW.shape[1])].long()
        rows_LW = cache_BKW[blocks].flatten(0, 1)[:length].to(q_TNH.dtype)
        queries = slice(starts[s], starts[s + 1])
        _expand_and_attend(o_TNV[queries], q_TNH[queries], up, rows_LW, scale, attend, most_bytes)
    return o_TNV


def _expand_and_attend(
    o_QNV: Tensor,
    q_QNH: Tensor,
    up: UpProjections,
    rows_LW: Tensor,
    scale: float,
    attend: Attend,
    most_bytes: int,
) -> None:
    queries, heads, key_dim = q_QNH.shape
    length, value_dim = len(rows_LW), o_QNV.shape[2]
    # Attention has one size for keys and values: zeros fill up the smaller one, and change no product.
    size = max(key_dim, value_dim)
    # Keys and values, and what each is copied from.
    at_once = max(1, most_bytes // (4 * length * size * q_QNH.element_size()))
    table, start, known = (
        torch.tensor(x, dtype=torch.int32, device=q_QNH.device) for x in ([[0]], [0, queries], [length])
    )
    for first in range(0, heads, at_once):
        some = slice(first, min(first + at_once, heads))
        k_MLH, v_MLV = _keys_and_values(up, some, rows_LW)
        q, k, v = (_widened(x, size) for x in (q_QNH[:, some], k_MLH, v_MLV))
        k, v = k.unsqueeze(0), v.unsqueeze(0)
        o_QNV[:, some] = attend(q, k, v, table, start, known, scale, queries, length)[..., :value_dim]


def _keys_and_values(up: UpProjections, heads: slice, rows_LW: Tensor) -> tuple[Tensor, Tensor]:
    """[M, L, H] and [M, L, V] of M heads (eq. 10, 11 and 17)."""
    k_MPC, v_MVC = up.keys[heads], up.values[heads]
    latent_LC, key_LR = rows_LW.split([k_MPC.shape[2], rows_LW.shape[1] - k_MPC.shape[2]], dim=1)
    made_MLP, v_MLV = (
        F.linear(latent_LC, x.flatten(0, 1)).unflatten(1, x.shape[:2]).transpose(0, 1) for x in (k_MPC, v_MVC)
    )
    return torch.cat((made_MLP, key_LR.expand(len(k_MPC), -1, -1)), dim=-1), v_MLV


def _widened(x: Tensor, size: int) -> Tensor:
    """Contiguous, with zeros behind the last dimension's values."""
    return x.contiguous() if x.shape[-1] == size else F.pad(x, (0, size - x.shape[-1]))
