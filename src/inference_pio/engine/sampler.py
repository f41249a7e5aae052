"""From logits to one token per sequence."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from inference_pio.engine.filters import candidates
from inference_pio.engine.logprobs import token_logprobs
from inference_pio.engine.penalties import adjust_logits
from inference_pio.engine.random import uniform
from inference_pio.engine.sequence import Sequence
from inference_pio.errors import GenerationError, NonFiniteLogits
from inference_pio.outputs import TokenLogprobs
from inference_pio.sampling_params import SamplingParams


class Sample(NamedTuple):
    """A token, or the error for which there is none."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    error: GenerationError | None = None


@torch.inference_mode()
def sample(logits_RV: Tensor, sequences: list[Sequence]) -> list[Sample]:
    """One token for each row; logits [R, vocab_size], one sequence per row.

    Rows are looked at one by one, so nothing a row contains can change another's result. Plain greedy rows cost
    nothing beyond the one maximum over all rows, which also finds rows that are not finite: NaN and +inf carry
    through a maximum, and a row of −inf has no finite one.
    """
    if not sequences:
        return []
    best_R, token_ids_R = logits_RV.max(dim=-1)
    rows = enumerate(zip(best_R.tolist(), token_ids_R.tolist(), sequences, strict=True))
    return [
        Sample(token_id)
        if math.isfinite(best) and sequence.request.plain_greedy
        else _sample_row(logits_RV[row], best, sequence)
        for row, (best, token_id, sequence) in rows
    ]


def is_plain_greedy(params: SamplingParams) -> bool:
    """Whether the token with the largest logit is all that is asked for."""
    return params.greedy and params.logprobs is None and not _adjusts(params)


def _sample_row(logits_V: Tensor, best: float, sequence: Sequence) -> Sample:
    params, request = sequence.request.params, sequence.request
    if not math.isfinite(best):
        what = "only −inf" if best == -math.inf else "NaN or +inf"
        return Sample(-1, error=NonFiniteLogits(_complaint(sequence, f"the model's logits hold {what}")))
    scores_V = adjust_logits(logits_V.float(), sequence) if _adjusts(params) else logits_V.float()
    if scores_V.max() == -torch.inf:
        return Sample(
            -1, error=GenerationError(_complaint(sequence, "logit_bias and min_tokens leave no token"))
        )
    if params.greedy:
        token_id = int(scores_V.argmax())
    else:
        u = uniform(request.seed, sequence.index, sequence.num_tokens)
        token_id = draw(scores_V / params.temperature, params, u)
    if params.logprobs is None:
        return Sample(token_id)
    return Sample(token_id, token_logprobs(logits_V, token_id, params.logprobs))


def draw(scores_V: Tensor, params: SamplingParams, u: float) -> int:
    """The token at quantile `u` (in [0, 1)) of the filtered distribution: the inverse of its cumulative function."""
    ids, weights = candidates(scores_V, params)
    cumulative = weights.cumsum(0)
    total = float(cumulative[-1])
    # Strictly below the total: rounding must not end behind the last token with any weight.
    target = min(u * total, math.nextafter(total, 0.0))
    place = int((cumulative <= target).sum())
    return place if ids is None else int(ids[place])


def _adjusts(params: SamplingParams) -> bool:
    return bool(
        params.logit_bias
        or params.min_tokens
        or params.repetition_penalty != 1.0
        or params.presence_penalty
        or params.frequency_penalty
    )


def _complaint(sequence: Sequence, what: str) -> str:
    return f"request {sequence.request.request_id}, answer {sequence.index}, position {sequence.num_tokens}: {what}"
