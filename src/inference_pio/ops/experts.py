"""A mixture's feed-forward maps: each token goes through the few experts that a router chose for it.

Shape letters: T tokens, K experts per token, E experts, D hidden size, I intermediate size.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from inference_pio.ops import dispatch, native
from inference_pio.ops.linear import few_shapes
from inference_pio.ops.reference import silu_and_mul
from inference_pio.ops.stacks import QuantizedStack


def top_experts(x_TD: Tensor, router_ED: Tensor, per_token: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """The `per_token` experts of the largest softmax(x routerᵀ): numbers int64 [T, K], probabilities float32 [T, K].

    The largest comes first, and of equal ones that with the lower number. `normalize` divides a token's by their sum.
    All of it is float32, whatever x is. A token whose logits are not finite has probabilities NaN, and goes to the
    first experts. A row's native result is the same, bit for bit, whatever else the call holds.
    """
    choose = dispatch.pick("top_experts", x_TD)
    return cast(tuple[Tensor, Tensor], choose(x_TD, router_ED, per_token, normalize))


def top_sigmoid_experts(
    x_TD: Tensor,
    router_ED: Tensor,
    bias_E: Tensor,
    per_token: int,
    groups: tuple[int, int] = (1, 1),
    normalize: bool = False,
    factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The experts of the largest sigmoid(x routerᵀ) + bias, and their sigmoids times `factor`: as `top_experts` does.

    DeepSeek-AI 2024, DeepSeek-V3, section 2.1.2: the bias chooses and does not weigh. With `groups` = (G, g) the
    experts are G groups in a row, and only those of the g groups are chosen whose two best add up to most. `normalize`
    divides a token's sigmoids by their sum. A token with a score that is no number has weights NaN, and goes to the
    first ones.
    """
    x32_TD, router32_ED, bias32_E = x_TD.float(), router_ED.float(), bias_E.float()
    if dispatch.serves(x_TD, "softmax"):
        numbers = (per_token, *groups, normalize, factor)
        found: tuple[Tensor, Tensor] = native.call(
            "top_sigmoid_experts", x32_TD.contiguous(), router32_ED.contiguous(), bias32_E, *numbers
        )
        return found
    scores_TE = F.linear(x32_TD, router32_ED).sigmoid()
    biased_TE = scores_TE + bias32_E
    usable_T1 = biased_TE.isfinite().all(dim=-1, keepdim=True)
    keys_TE = _in_the_best_groups(biased_TE, *groups).where(usable_T1, float("nan"))
    chosen_TK = keys_TE.sort(dim=-1, descending=True, stable=True).indices[:, :per_token].contiguous()
    weights_TK = scores_TE.where(usable_T1, float("nan")).gather(1, chosen_TK)
    if normalize:
        weights_TK = weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + 1e-20)
    return chosen_TK, weights_TK * factor


def _in_the_best_groups(biased_TE: Tensor, groups: int, per_token: int) -> Tensor:
    """Experts of the other groups have -inf; of groups that are worth the same the first ones are better."""
    if groups == 1:
        return biased_TE
    biased_TGe = biased_TE.unflatten(1, (groups, -1))
    worth_TG = biased_TGe.topk(2, dim=-1).values.sum(dim=-1)
    best_TG = worth_TG.sort(dim=-1, descending=True, stable=True).indices[:, :per_token]
    out_TG = torch.ones_like(worth_TG, dtype=torch.bool).scatter(1, best_TG, False)
    allowed_TE: Tensor = biased_TGe.masked_fill(out_TG[..., None], float("-inf")).flatten(1)
    return allowed_TE


def experts(
    x_TD: Tensor,
    gate_up_EJD: Tensor | QuantizedStack,
    down_EDI: Tensor | QuantizedStack,
    chosen_TK: Tensor,
    weights_TK: Tensor,
) -> Tensor:
    """Σ_k weights[t, k] · down_e(silu(gate_e(x)) · up_e(x)), e = chosen[t, k]: [T, D] in x's dtype.

    Shazeer et al. 2017, eq. 1, with SwiGLU experts. gate_up is [E, 2I, D], the gate's rows first. chosen is int64, no
    expert twice for a token; weights are float32. Tokens are sorted by expert, so that the weight of each one that is
    used is read once; a token's sum runs in the order of its k, whatever else the call holds.

    Weights that stay in blocks are multiplied as `linear` does it, in C++ (csrc/experts.cpp): activations are rounded
    to 8 bits, and a row's result is the same, bit for bit, whatever other rows the call has, for any number of threads.
    """
    stacks = isinstance(gate_up_EJD, QuantizedStack) and isinstance(down_EDI, QuantizedStack)
    if stacks and dispatch.is_native("mlp"):
        gate_up, down = cast(QuantizedStack, gate_up_EJD), cast(QuantizedStack, down_EDI)
        weights = (gate_up.data, gate_up.parts, down.data, down.parts)
        x32_TD = x_TD.float().contiguous()
        y_TD: Tensor = native.call("experts", x32_TD, *weights, chosen_TK, weights_TK)
        return y_TD.to(x_TD.dtype)
    return _one_by_one(x_TD, gate_up_EJD, down_EDI, chosen_TK, weights_TK)


def _one_by_one(
    x_TD: Tensor,
    gate_up_EJD: Tensor | QuantizedStack,
    down_EDI: Tensor | QuantizedStack,
    chosen_TK: Tensor,
    weights_TK: Tensor,
) -> Tensor:
    """The reference: each expert that is used, in torch; one that is in blocks is expanded."""
    tokens, per_token = chosen_TK.shape
    flat = chosen_TK.flatten()
    order = flat.argsort(stable=True)
    made = x_TD.new_empty(tokens * per_token, x_TD.shape[1])
    for expert, rows in enumerate(order.split(flat.bincount().tolist())):
        if len(rows):
            x = few_shapes(x_TD[rows // per_token])
            hidden = silu_and_mul(F.linear(x, _matrix(gate_up_EJD, expert, x.dtype)))
            made[rows] = F.linear(hidden, _matrix(down_EDI, expert, x.dtype))[: len(rows)]
    y_TD = made.unflatten(0, (tokens, per_token)).float() * weights_TK[..., None]
    return torch.sum(y_TD, dim=1).to(x_TD.dtype)


def _matrix(weights: Tensor | QuantizedStack, expert: int, dtype: torch.dtype) -> Tensor:
    if isinstance(weights, QuantizedStack):
        return weights.of(expert).dequantize().to(dtype)
    return weights[expert]
