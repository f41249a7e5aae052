"""Log-probabilities to report."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pio.outputs import Logprob, TokenLogprobs


def token_logprobs(logits_V: Tensor, token_id: int, num_logprobs: int) -> TokenLogprobs:
    """The token's own log-probability and those of the `num_logprobs` best, with ranks.

    `logits_V` are the model's own: before bias, penalties, temperature and filters.
    """
    logprobs_V = torch.log_softmax(logits_V.float(), dim=-1)
    own = logprobs_V[token_id]
    result = {token_id: Logprob(float(own), int((logprobs_V > own).sum()) + 1)}
    if num_logprobs:
        best, ids = torch.topk(logprobs_V, min(num_logprobs, len(logprobs_V)))
        for rank, (logprob, other) in enumerate(zip(best.tolist(), ids.tolist(), strict=True), 1):
            result.setdefault(other, Logprob(logprob, rank))
    return result
