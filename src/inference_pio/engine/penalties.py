"""What a request changes about the logits themselves, before temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pio.engine.sequence import Request

BAN = -100.0


def adjust_logits(logits_V: Tensor, request: Request, token_ids: list[int]) -> Tensor:
    """Logit bias, minimum length, then penalties, in the order of vLLM's sampler; the input is left alone.

    `token_ids` are prompt and answer up to the position that the logits are for.

    * bias: added; −100, the lowest legal value, bans the token (what the OpenAI API promises for it).
    * min_tokens: end-of-text and stop tokens are banned before that many tokens.
    * repetition (CTRL, Keskar et al. 2019, section 4.1): over prompt and answer; positive logits are divided,
      negative ones multiplied.
    * frequency and presence (OpenAI): subtracted over the answer, per occurrence and once.
    """
    params, num_generated = request.params, len(token_ids) - request.prompt_len
    logits_V = logits_V.clone()
    if params.logit_bias:
        ids = _ids(list(params.logit_bias), logits_V)
        bias = torch.tensor(list(params.logit_bias.values()), dtype=logits_V.dtype, device=logits_V.device)
        logits_V[ids] += bias.masked_fill(bias == BAN, -torch.inf)
    if num_generated < params.min_tokens:
        logits_V[_ids(list(request.end_token_ids), logits_V)] = -torch.inf
    if params.repetition_penalty != 1.0:
        ids = _ids(token_ids, logits_V)
        seen = logits_V[ids]
        penalty = params.repetition_penalty
        logits_V[ids] = torch.where(seen > 0, seen / penalty, seen * penalty)
    if (params.frequency_penalty or params.presence_penalty) and num_generated:
        ids, counts = _ids(token_ids[request.prompt_len :], logits_V).unique(return_counts=True)
        logits_V[ids] -= params.frequency_penalty * counts + params.presence_penalty
    return logits_V


def _ids(token_ids: list[int], like: Tensor) -> Tensor:
    return torch.tensor(token_ids, dtype=torch.int64, device=like.device)
