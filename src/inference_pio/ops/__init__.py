"""Pure functions with one signature and several implementations: torch everywhere, C++ on the CPU.

Shape letters: T tokens, S sequences, N query heads, M key/value heads, H head size, D hidden size,
I intermediate size, O outputs, P positions, B blocks per sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, cast

from torch import Tensor

from inference_pio.ops.delta_rule import CHUNK as DELTA_CHUNK
from inference_pio.ops.delta_rule import Spans, causal_conv, decay_and_rate, gated_delta_rule, going_on
from inference_pio.ops.dispatch import GROUPS, Group, OpChoice, is_native, leave_out, pick, table, use
from inference_pio.ops.experts import experts, top_experts, top_sigmoid_experts
from inference_pio.ops.gates import add_shared, gated_rms_norm, sigmoid_gate, small_linear, take_columns
from inference_pio.ops.kept_heads import SCALE_DTYPE, WHOLE_NUMBERS, kept_width
from inference_pio.ops.latent import (
    Sequences,
    UpProjections,
    absorbed_attention,
    expanded_attention,
    store_latents,
    turn_pairs,
    turn_tails,
)
from inference_pio.ops.linear import PackedWeight, linear, pack_weight, rows_of
from inference_pio.ops.mass import attention_mass
from inference_pio.ops.paging import (
    PAGE,
    Page,
    PagedQuantizedWeight,
    PagedWeight,
    Pager,
    PagerCounts,
    PageUnit,
    num_sums,
    unit_sums,
)
from inference_pio.ops.quantized import (
    GROUP_ROWS,
    Blocks,
    QuantizedWeight,
    can_pack,
    pack_quantized,
    packed_bytes,
    parts_of,
    quantized_embedding,
    quantized_gated_linear,
)
from inference_pio.ops.recording import CannotRecord, RecordedStep
from inference_pio.ops.reference import HeadNorms
from inference_pio.ops.rotary import (
    cos_sin_table,
    inverse_frequencies,
    rotary_table,
    yarn_attention_factor,
    yarn_frequencies,
)
from inference_pio.ops.slab import HandsOut, Slab
from inference_pio.ops.sparse import Selection, sparse_attention
from inference_pio.ops.stacks import QuantizedStack

Activation = Literal["silu", "gelu_tanh"]

__all__ = [
    "DELTA_CHUNK",
    "GROUPS",
    "GROUP_ROWS",
    "PAGE",
    "SCALE_DTYPE",
    "WHOLE_NUMBERS",
    "Activation",
    "Blocks",
    "CannotRecord",
    "Group",
    "HandsOut",
    "HeadNorms",
    "OpChoice",
    "PackedWeight",
    "Page",
    "PageUnit",
    "PagedQuantizedWeight",
    "PagedWeight",
    "Pager",
    "PagerCounts",
    "QuantizedStack",
    "QuantizedWeight",
    "RecordedStep",
    "Selection",
    "Sequences",
    "Slab",
    "Spans",
    "UpProjections",
    "absorbed_attention",
    "activate_and_mul",
    "add_rms_norm",
    "add_shared",
    "attention_mass",
    "can_pack",
    "causal_conv",
    "cos_sin_table",
    "decay_and_rate",
    "expanded_attention",
    "experts",
    "gated_delta_rule",
    "gated_linear",
    "gated_rms_norm",
    "gelu_tanh_and_mul",
    "going_on",
    "inverse_frequencies",
    "is_native",
    "kept_width",
    "leave_out",
    "linear",
    "num_sums",
    "pack_quantized",
    "pack_weight",
    "packed_bytes",
    "paged_attention",
    "parts_of",
    "quantized_embedding",
    "rms_norm",
    "rope_and_cache",
    "rotary_table",
    "row_max",
    "rows_of",
    "sigmoid_gate",
    "silu_and_mul",
    "small_linear",
    "sparse_attention",
    "store_latents",
    "table",
    "take_columns",
    "top_experts",
    "top_sigmoid_experts",
    "turn_pairs",
    "turn_tails",
    "unit_sums",
    "use",
    "yarn_attention_factor",
    "yarn_frequencies",
]


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    """x / sqrt(mean(x²) + eps) · (offset + weight) (Zhang and Sennrich 2019, eq. 4), [T, D] in x's dtype.

    Statistics in float32. The normalised value is rounded to x's dtype before the weight multiplies it; with an offset
    (zero-centred weights, as Gemma has them) all of it is float32, rounded once.
    """
    return cast(Tensor, pick("rms_norm", x_TD)(x_TD, weight_D, eps, offset))


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(rms_norm(residual + x), residual + x), the sum rounded to x's dtype first.

    The residual may be updated in place: use the returned one and nothing else from here on.
    """
    return cast(tuple[Tensor, Tensor], pick("add_rms_norm", x_TD)(x_TD, residual_TD, weight_D, eps, offset))


def rope_and_cache(
    qkv_TE: Tensor,
    positions_T: Tensor,
    cos_sin_PH: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping_T: Tensor,
    num_heads: int,
    num_kv_heads: int,
    scales: Tensor | None = None,
    norms: HeadNorms | None = None,
) -> Tensor:
    """Rotated queries [T, N, H]; rotated keys and the values go into the cache.

    qkv is [T, (N + 2M)·H]. `norms` come first, where a model has them: each head's queries and keys by `rms_norm`. The
    rotation turns (x[i], x[i + R/2]) by the angle of the token's position (Su et al. 2021, eq. 34, halves layout), in
    float32 and rounded once; row p of cos_sin (float32 [positions, R]) holds cos in its first R/2 columns, sin in its
    last. R may be less than H: the rest of a head stays as it is. Caches are [blocks, M, block_size, H] in qkv's
    dtype; a slot is block · block_size + offset. positions and slot_mapping are int64 [T].

    Beside float32 activations caches may be bfloat16, and beside either, with `scales`, whole numbers: int8, or uint8
    [blocks, M, block_size, H / 2] of two numbers of 4 bits, H a multiple of 8. A head's key or value is turned, and
    rounded to whole numbers times one scale of its own (`ops.kept_heads`). scales is bfloat16
    [blocks, M, 2, block_size], those of keys first. What is not finite has a scale NaN.
    """
    rotate = pick("rope_and_cache", qkv_TE)
    caches = (k_cache, v_cache, slot_mapping_T)
    return cast(
        Tensor, rotate(qkv_TE, positions_T, cos_sin_PH, *caches, num_heads, num_kv_heads, scales, norms)
    )


def paged_attention(
    q_TNH: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables_SB: Tensor,
    query_start_S1: Tensor,
    seq_lens_S: Tensor,
    scale: float,
    max_query_len: int,
    max_seq_len: int,
    scales: Tensor | None = None,
    window: int | None = None,
    reads_all: bool = False,
) -> Tensor:
    """softmax(scale · q kᵀ) v over the cache, causal, [T, N, H] (Vaswani et al. 2017, eq. 1).

    Rows query_start[s] to query_start[s + 1] are the last tokens of sequence s, which has seq_lens[s] tokens
    in the cache blocks block_tables[s]; each sees the positions up to its own, or only the last `window` of
    them, its own included (Beltagy et al. 2020). What lies behind seq_lens is never read, and of what lies
    before a window no more than one tile; with `reads_all` all of that is, for the same bits. block_tables,
    query_start and seq_lens are int32. The native result of a row is the same, bit for bit, whatever else the
    call holds, however the prompt is cut into calls, for any number of threads. scales belong to caches of whole
    numbers, as `rope_and_cache` writes them.
    """
    attend = pick("paged_attention", q_TNH)
    where = (block_tables_SB, query_start_S1, seq_lens_S)
    longest = (max_query_len, max_seq_len)
    return cast(Tensor, attend(q_TNH, k_cache, v_cache, *where, scale, *longest, scales, window, reads_all))


def gated_linear(
    x_TI: Tensor,
    packed: PackedWeight | QuantizedWeight,
    bias_O: Tensor | None = None,
    activation: Activation = "silu",
) -> Tensor:
    """activation(gate) · up of linear(x, packed, bias), in one pass where the weight and its device allow it."""
    if isinstance(packed, QuantizedWeight) and packed.halves_match and is_native("matmul"):
        return quantized_gated_linear(x_TI, packed, bias_O, activation)
    return activate_and_mul(linear(x_TI, packed, bias_O), activation)


def activate_and_mul(x_T2I: Tensor, activation: Activation) -> Tensor:
    """activation(gate) · up [T, I], gate the first and up the second half of x's columns."""
    return _ACTIVATE[activation](x_T2I)


def row_max(x_TV: Tensor) -> tuple[Tensor, Tensor]:
    """The largest value of each row, [T] in x's dtype, and its first place, [T] int64. A NaN is the largest value."""
    return cast(tuple[Tensor, Tensor], pick("row_max", x_TV)(x_TV))


def silu_and_mul(x_T2I: Tensor) -> Tensor:
    """silu(gate) · up [T, I], gate the first and up the second half of x's columns (Shazeer 2020, eq. 6)."""
    return cast(Tensor, pick("silu_and_mul", x_T2I)(x_T2I))


def gelu_tanh_and_mul(x_T2I: Tensor) -> Tensor:
    """gelu(gate) · up [T, I], halves as in `silu_and_mul` (GEGLU, Shazeer 2020, eq. 6).

    gelu(x) = x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))) (Hendrycks and Gimpel 2016, eq. 2).
    """
    return cast(Tensor, pick("gelu_tanh_and_mul", x_T2I)(x_T2I))


_ACTIVATE: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu_and_mul,
    "gelu_tanh": gelu_tanh_and_mul,
}
