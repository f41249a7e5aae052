"""A mixture's feed-forward maps: each token goes through the few experts that a router chose for it.

Shape letters: T tokens, K experts per token, E experts, D hidden size, I intermediate size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops.reference import silu_and_mul


def experts(
    x_TD: Tensor, gate_up_EJD: Tensor, down_EDI: Tensor, chosen_TK: Tensor, weights_TK: Tensor
) -> Tensor:
    """Σ_k weights[t, k] · down_e(silu(gate_e(x)) · up_e(x)), e = chosen[t, k]: [T, D] in x's dtype.

    Shazeer et al. 2017, eq. 1, with SwiGLU experts. gate_up is [E, 2I, D], the gate's rows first. chosen is int64, no
    expert twice for a token; weights are float32. Tokens are sorted by expert, so that the weight of each one that is
    used is read once; a token's sum runs in the order of its k, whatever else the call holds.
    """
    tokens, per_token = chosen_TK.shape
    flat = chosen_TK.flatten()
    order = flat.argsort(stable=True)
    made = x_TD.new_empty(tokens * per_token, down_EDI.shape[1])
    for expert, rows in enumerate(order.split(flat.bincount(minlength=len(gate_up_EJD)).tolist())):
        if len(rows):
            hidden = silu_and_mul(F.linear(x_TD[rows // per_token], gate_up_EJD[expert]))
            made[rows] = F.linear(hidden, down_EDI[expert])
    y_TD = made.unflatten(0, (tokens, per_token)).float() * weights_TK[..., None]
    return torch.sum(y_TD, dim=1).to(x_TD.dtype)
