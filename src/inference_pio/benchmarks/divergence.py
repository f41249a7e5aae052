"""How far a model's answers move when it runs in another way: the same tokens, their logits side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from inference_pio.errors import UsageError

_SHORT_PROMPT, _SHORT_ANSWER, _SHORT = 192, 64, 16
_LONG_PROMPT, _LONG_ANSWER = 2048, 192
_ROWS = 64  # of logits, compared at once


@dataclass(frozen=True)
class Probe:
    """A piece of text: what stands in front, and the tokens whose logits are compared."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Divergence:
    """Of a model from a reference, over `tokens` tokens: mean KL(reference ‖ model) in nats, with the half width of its
    95 % interval; share of equal best tokens; the model's perplexity on the text.
    """

    kl: float
    kl_error: float
    top1: float
    perplexity: float
    tokens: int


def probes_of(token_ids: Sequence[int], max_model_len: int) -> list[Probe]:
    """Short pieces from all over a text, and a long one where text and model allow it.

    Raises:
        UsageError: the text is too short for two pieces.
    """
    short = min(_SHORT_PROMPT, max_model_len - _SHORT_ANSWER) + _SHORT_ANSWER
    count = min(_SHORT, len(token_ids) // short)
    if count < 2:
        raise UsageError(
            f"the text has {len(token_ids):,} tokens; two pieces of {short} are the least that says anything: give a "
            f"longer one"
        )
    starts = [piece * (len(token_ids) - short) // (count - 1) for piece in range(count)]
    probes = [_probe(token_ids, start, short - _SHORT_ANSWER, _SHORT_ANSWER) for start in starts]
    if min(len(token_ids), max_model_len) >= _LONG_PROMPT + _LONG_ANSWER:
        probes.append(_probe(token_ids, 0, _LONG_PROMPT, _LONG_ANSWER))
    return probes


def divergence(reference: Sequence[Tensor], found: Sequence[Tensor], probes: Sequence[Probe]) -> Divergence:
    """Compare logits [tokens, vocab_size] of each probe's answer."""
    kl, same, nll = [], [], []
    for expected, logits, probe in zip(reference, found, probes, strict=True):
        answer = torch.tensor(probe.answer)
        for rows in torch.arange(len(answer)).split(_ROWS):
            log_p, log_q = expected[rows].log_softmax(-1), logits[rows].log_softmax(-1)
            kl.append((log_p.exp() * (log_p - log_q)).sum(-1))
            same.append(log_p.argmax(-1) == log_q.argmax(-1))
            nll.append(functional.nll_loss(log_q, answer[rows], reduction="none"))
    each = torch.cat(kl).double()
    error = 1.96 * each.std().item() / math.sqrt(len(each))
    top1 = torch.cat(same).double().mean().item()
    return Divergence(
        max(0.0, each.mean().item()), error, top1, math.exp(torch.cat(nll).mean().item()), len(each)
    )


def worse(reference: Sequence[Tensor], found: Sequence[Tensor], probes: Sequence[Probe]) -> Divergence:
    """Behind short prompts or behind long ones, whichever moved more: what only acts on long ones must not be judged by
    what short ones hardly show. KL and agreement are each the worse, the others those of all.
    """
    whole = divergence(reference, found, probes)
    parts = []
    for long in (False, True):
        chosen = [i for i, probe in enumerate(probes) if (len(probe.prompt) >= _LONG_PROMPT) is long]
        if chosen:
            before, after = ([logits[i] for i in chosen] for logits in (reference, found))
            parts.append(divergence(before, after, [probes[i] for i in chosen]))
    worst = max(parts, key=lambda part: part.kl)
    return replace(whole, kl=worst.kl, kl_error=worst.kl_error, top1=min(part.top1 for part in parts))


def _probe(token_ids: Sequence[int], start: int, prompt: int, answer: int) -> Probe:
    cut = start + prompt
    return Probe(list(token_ids[start:cut]), list(token_ids[cut : cut + answer]))
