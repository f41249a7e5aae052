"""Which tokens a request may draw from, and with what weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference_pio.sampling_params import SamplingParams

# Enough for nearly every nucleus; a larger one is found by sorting the whole vocabulary.
_FIRST_GUESS = 512


def candidates(scores_V: Tensor, params: SamplingParams) -> tuple[Tensor | None, Tensor]:
    """Token ids (None: all, by id) and unnormalised weights (float64) of the tokens that pass every filter.

    `scores_V` are logits over temperature, with a finite maximum. Filtered candidates come most likely first, equal
    ones by id, so that the result depends on nothing but the row. The order of filters is vLLM's, with `typical_p`
    at its end as in Transformers; each acts on what the one before left, renormalised:

    1. min_p: at least `min_p` times the largest probability (Nguyen et al. 2024).
    2. top_k: the k most likely, and all that tie with the last of them (Fan et al. 2018).
    3. top_p: the smallest set of most likely tokens that holds probability `top_p` (Holtzman et al. 2020).
    4. typical_p: the smallest set nearest to the expected information that holds `typical_p` (Meister et al. 2023).
    """
    peak = scores_V.max()
    floor = _floor(scores_V, peak, params)
    if floor is None and params.top_p == 1.0 and params.typical_p == 1.0:
        return None, (scores_V - peak).exp().double()
    if floor is None and params.top_p < 1.0:
        ids, weights = _nucleus_of_all(scores_V, peak, params.top_p)
    else:
        ids, weights = _at_least(scores_V, peak, floor)
        if params.top_p < 1.0:
            kept = _nucleus(weights, float(weights.sum()), params.top_p)
            ids, weights = ids[:kept], weights[:kept]
    if params.typical_p < 1.0:
        kept_ids = _typical(weights, params.typical_p)
        ids, weights = ids[kept_ids], weights[kept_ids]
    return ids, weights


def _floor(scores_V: Tensor, peak: Tensor, params: SamplingParams) -> Tensor | None:
    """min_p and top_k keep what scores at least this; None if both are off."""
    floor = None
    if params.min_p > 0.0:
        floor = peak + math.log(params.min_p)
    if 0 < params.top_k < len(scores_V):
        kth = torch.topk(scores_V, params.top_k).values[-1]
        floor = kth if floor is None else torch.maximum(floor, kth)
    return floor


def _at_least(scores_V: Tensor, peak: Tensor, floor: Tensor | None) -> tuple[Tensor, Tensor]:
    ids = (scores_V >= (-torch.inf if floor is None else floor)).nonzero().squeeze(1)
    scores, order = scores_V[ids].sort(descending=True, stable=True)
    return ids[order], (scores - peak).double().exp()


def _nucleus_of_all(scores_V: Tensor, peak: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    total = float((scores_V - peak).double().exp().sum())
    if len(scores_V) > _FIRST_GUESS:
        ids, weights = _at_least(scores_V, peak, torch.topk(scores_V, _FIRST_GUESS).values[-1])
        if float(weights.sum()) >= top_p * total:
            kept = _nucleus(weights, total, top_p)
            return ids[:kept], weights[:kept]
    ids, weights = _at_least(scores_V, peak, None)
    kept = _nucleus(weights, total, top_p)
    return ids[:kept], weights[:kept]


def _nucleus(weights: Tensor, total: float, top_p: float) -> int:
    """How many leading weights it takes to reach `top_p` of `total`; at least one."""
    before = weights.cumsum(0) - weights
    return max(1, int((before < top_p * total).sum()))


def _typical(weights: Tensor, typical_p: float) -> Tensor:
    """Indices of the tokens whose information is nearest to the entropy; those that tie with the last one too."""
    probabilities = weights / weights.sum()
    information = -probabilities.log()
    entropy = (probabilities * information).nansum()
    distance = (information - entropy).abs()
    nearest, order = distance.sort(stable=True)
    last = int((probabilities[order].cumsum(0) < typical_p).sum())
    return (distance <= nearest[min(last, len(nearest) - 1)]).nonzero().squeeze(1)
