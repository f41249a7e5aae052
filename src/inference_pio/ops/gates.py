"""What gates, and what stands between a merged product and the operations that take its parts: in torch and in C++.

Shape letters: T tokens, N heads, V size of a head, D hidden size, E and I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops import native
from inference_pio.ops.dispatch import serves


def gated_rms_norm(x_TNV: Tensor, gate_TNV: Tensor, weight_V: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight · silu(gate), in float32 and rounded to the gate's dtype once."""
    if serves(gate_TNV, "layernorm"):
        y_TNV: Tensor = native.call(
            "gated_rms_norm", x_TNV.float().contiguous(), gate_TNV, weight_V.float(), eps
        )
        return y_TNV
    x32 = x_TNV.float()
    x32 = x32 * torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + eps) * weight_V.float()
    return (x32 * F.silu(gate_TNV.float())).to(gate_TNV.dtype)


def sigmoid_gate(x_TE: Tensor, gate_TE: Tensor) -> Tensor:
    """x · sigmoid(gate), the sigmoid rounded to x's dtype first (Qiu et al. 2025, "Gated Attention")."""
    if serves(x_TE, "mlp"):
        y_TE: Tensor = native.call("sigmoid_gate", x_TE, gate_TE)
        return y_TE
    return x_TE * gate_TE.sigmoid()


def add_shared(routed_TD: Tensor, shared_TD: Tensor, gate_T1: Tensor | None = None) -> Tensor:
    """routed + shared, or routed + sigmoid(gate) · shared: a mixture's experts, and the one that every token meets."""
    if serves(routed_TD, "mlp"):
        y_TD: Tensor = native.call("add_shared", routed_TD, shared_TD, gate_T1)
        return y_TD
    return routed_TD + (shared_TD if gate_T1 is None else gate_T1.sigmoid() * shared_TD)


def take_columns(x_TE: Tensor, runs: Sequence[int]) -> Tensor:
    """Columns side by side in another order: `runs` holds a first column and a number of columns, in turns."""
    if serves(x_TE, "matmul"):
        y_TI: Tensor = native.call("take_columns", x_TE, runs)
        return y_TI
    pieces = zip(runs[::2], runs[1::2], strict=True)
    return torch.cat([x_TE[:, first : first + count] for first, count in pieces], dim=1)


def small_linear(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    """x weightᵀ with a weight that stays dense beside others in blocks: routers, gates, decays. Native in float32."""
    if serves(x_TI, "matmul") and x_TI.dtype == weight_OI.dtype == torch.float32:
        y_TO: Tensor = native.call("small_linear", x_TI.contiguous(), weight_OI)
        return y_TO
    return F.linear(x_TI, weight_OI)
