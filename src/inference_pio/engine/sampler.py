"""From logits to the next tokens of each sequence."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.engine.filters import candidates
from inference_pio.engine.logprobs import token_logprobs
from inference_pio.engine.penalties import adjust_logits
from inference_pio.engine.random import uniform
from inference_pio.engine.sequence import Drafts, Sequence
from inference_pio.errors import GenerationError, NonFiniteLogits
from inference_pio.outputs import TokenLogprobs
from inference_pio.sampling_params import SamplingParams


class Sample(NamedTuple):
    """A token, or the error for which there is none."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    error: GenerationError | None = None


@torch.inference_mode()
def sample(logits_RV: Tensor, sequences: list[Sequence], drafts: Drafts) -> list[list[Sample]]:
    """The next tokens of each sequence: those of its drafts that are right, and one more.

    Logits are [R, vocab_size]: for each sequence, in order, one row behind its last token and one behind each draft.
    A row counts only if all drafts before it are what was drawn (`speculation.py` says why that is exact).

    Rows are looked at one by one, so nothing a row contains can change another's result. Plain greedy rows cost
    nothing beyond the one maximum over all rows, which also finds rows that are not finite: NaN and +inf carry
    through a maximum, and a row of −inf has no finite one.
    """
    if not sequences:
        return []
    best_R, token_ids_R = ops.row_max(logits_RV)
    best, largest = best_R.tolist(), token_ids_R.tolist()

    def behind(token_ids: list[int], sequence: Sequence, row: int) -> Sample:
        if sequence.request.plain_greedy and math.isfinite(best[row]):
            return Sample(largest[row])
        return _sample_row(logits_RV[row], best[row], sequence, token_ids)

    result, row = [], 0
    for sequence in sequences:
        samples = [behind(sequence.token_ids, sequence, row)]
        if guesses := drafts.get(sequence):
            token_ids = sequence.token_ids.copy()
            for place, guess in enumerate(guesses, row + 1):
                if samples[-1].token_id != guess:
                    break
                token_ids.append(guess)
                samples.append(behind(token_ids, sequence, place))
            row += len(guesses)
        row += 1
        result.append(samples)
    return result


def is_plain_greedy(params: SamplingParams) -> bool:
    """Whether the token with the largest logit is all that is asked for."""
    return params.greedy and params.logprobs is None and not _adjusts(params)


def _sample_row(logits_V: Tensor, best: float, sequence: Sequence, token_ids: list[int]) -> Sample:
    """A token to follow `token_ids`: those of the sequence, and drafts that were right."""
    params, request = sequence.request.params, sequence.request
    where = f"request {request.request_id}, answer {sequence.index}, position {len(token_ids)}"
    if not math.isfinite(best):
        what = "only −inf" if best == -math.inf else "NaN or +inf"
        return Sample(-1, error=NonFiniteLogits(f"{where}: the model's logits hold {what}"))
    scores_V = logits_V.float()
    if _adjusts(params):
        scores_V = adjust_logits(scores_V, request, token_ids)
    if scores_V.max() == -torch.inf:
        return Sample(-1, error=GenerationError(f"{where}: logit_bias and min_tokens leave no token"))
    if params.greedy:
        token_id = int(scores_V.argmax())
    else:
        u = uniform(request.seed, sequence.index, len(token_ids))
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


def append(sequence: Sequence, samples: list[Sample]) -> list[Sample]:
    """Add tokens to an answer up to its end; those that were added."""
    for count, drawn in enumerate(samples, 1):
        if sequence.append(drawn.token_id) is not None:
            return samples[:count]
    return samples
