"""The C++ kernels, if this installation has them: loaded once, silent if absent, with the reason kept.

The library registers its operators with torch (stable ABI) and uses torch's own threads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference_pio.ops.reference import HeadNorms

DTYPES = frozenset({torch.float32, torch.bfloat16})
_NAMES = (
    "rms_norm", "add_rms_norm", "rope_and_cache", "paged_attention", "silu_and_mul", "gelu_tanh_and_mul", "row_max",
    "sparse_attention", "top_experts", "experts", "pack_blocks", "packed_bytes", "linear", "gated_linear", "embedding",
    "top_sigmoid_experts", "small_linear", "gated_rms_norm", "sigmoid_gate", "add_shared", "take_columns",
    "causal_conv", "gated_delta_rule", "decay_and_rate", "store_latents", "turn_tails", "absorb_keys", "raise_values",
    "attention_mass",
    "begin_recording", "abandon_recording", "end_recording", "replay", "timed_replay", "forget_step",
    "pager_chunk", "pager_sums", "pager_open", "pager_enter", "pager_leave", "pager_counts", "pager_close",
)  # fmt: skip
ISA_SWITCH = "INFERENCE_PIO_ISA"
NO_WINDOW = 2**62


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    rows_TD = x_TD if x_TD.stride(-1) == 1 else x_TD.contiguous()
    return _call("rms_norm", rows_TD, weight_D, eps, offset)


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    residual_TD = residual_TD.contiguous()
    return _call("add_rms_norm", x_TD.contiguous(), residual_TD, weight_D, eps, offset), residual_TD


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
    q_norm_H, k_norm_H, eps, offset = norms or (None, None, 0.0, 0.0)
    return _call(
        "rope_and_cache",
        qkv_TE.contiguous(),
        positions_T,
        cos_sin_PH,
        k_cache,
        v_cache,
        slot_mapping_T,
        num_heads,
        num_kv_heads,
        scales,
        q_norm_H,
        k_norm_H,
        eps,
        offset,
    )


def paged_attention(
    q_TNH: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables_SB: Tensor,
    query_start_S1: Tensor,
    seq_lens_S: Tensor,
    scale: float,
    max_query_len: int,  # noqa: ARG001
    max_seq_len: int,  # noqa: ARG001
    scales: Tensor | None = None,
    window: int | None = None,
    reads_all: bool = False,
) -> Tensor:
    return _call(
        "paged_attention",
        q_TNH.contiguous(),
        k_cache,
        v_cache,
        block_tables_SB.contiguous(),
        query_start_S1,
        seq_lens_S,
        scale,
        scales,
        NO_WINDOW if window is None else window,
        reads_all,
    )


def row_max(x_TV: Tensor) -> tuple[Tensor, Tensor]:
    largest: tuple[Tensor, Tensor] = call("row_max", x_TV.contiguous())
    return largest


def silu_and_mul(x_T2I: Tensor) -> Tensor:
    return _call("silu_and_mul", x_T2I.contiguous())


def gelu_tanh_and_mul(x_T2I: Tensor) -> Tensor:
    return _call("gelu_tanh_and_mul", x_T2I.contiguous())


def top_experts(x_TD: Tensor, router_ED: Tensor, per_token: int, normalize: bool) -> tuple[Tensor, Tensor]:
    router_ED = router_ED.float().contiguous()
    chosen: tuple[Tensor, Tensor] = call(
        "top_experts", x_TD.float().contiguous(), router_ED, per_token, normalize
    )
    return chosen


def _load() -> tuple[dict[str, Any], str, str | None]:
    """The operators by name, the instruction set they use, and why there are none (None if there are)."""
    found: Sequence[Path] = sorted(Path(__file__).parent.parent.glob("_native*.so"))
    if not found:
        return {}, "", "native kernels not built: install again with a C++ compiler and torch present"
    try:
        torch.ops.load_library(str(found[0]))
    except OSError as error:
        return {}, "", f"native kernels do not load ({_first_line(error)}): build them again with this torch"
    try:
        isa = use_isa(os.environ.get(ISA_SWITCH, ""))
    except RuntimeError as error:
        return {}, "", f"{_first_line(error)} in {ISA_SWITCH}"
    return {name: getattr(torch.ops.inference_pio, name).default for name in _NAMES}, isa, None


def library_digest() -> bytes:
    """Of the library's file: packed weights that were written to a disk are those of one build."""
    found = sorted(Path(__file__).parent.parent.glob("_native*.so"))
    return hashlib.sha256(found[0].read_bytes()).digest() if found else b""


def use_isa(name: str) -> str:
    """Every call from here on uses this instruction set, the best one for ""; returns its name.

    Raises RuntimeError if this processor does not have it.
    """
    return str(torch.ops.inference_pio.use_isa(name))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


_operators, ISA, MISSING = _load()


def call(name: str, *args: Any) -> Any:
    """The operator of that name in csrc/operators.cpp."""
    return _operators[name](*args)


def _call(name: str, *args: Any) -> Tensor:
    y: Tensor = _operators[name](*args)
    return y
