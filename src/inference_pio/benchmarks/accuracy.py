"""Whether the fast number format says the same as float32: perplexity on a real text, agreement of the best token.

The text is Shakespeare's sonnets in part (public domain), in the excerpt that the llmperf project ships.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import torch
from torch import Tensor
from torch.nn import functional

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.workload import Suite
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.serving import serving_of

_TEXT = "sonnets.txt"
_MOST_TOKENS, _QUICK_TOKENS = 1024, 64
_CHUNK = 256
_BLOCK = 32


@dataclass(frozen=True)
class Scores:
    """For each token but the first: what the model thought of it, and which one it would have said itself."""

    nll: Tensor
    best: Tensor

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood per token."""
        return math.exp(self.nll.mean().item())


def measure(suite: Suite, settings: Settings) -> Report:
    """The model in its fast format (bfloat16 where the caller names none) against the same weights in float32."""
    text = resources.files(__package__).joinpath(_TEXT).read_text(encoding="utf-8")
    most = _QUICK_TOKENS if settings.quick else _MOST_TOKENS
    dtype = "bfloat16" if settings.dtype == "auto" else settings.dtype
    with settings.load(suite, suite.decode.quick(), dtype=dtype, text=True) as loaded:
        ids = loaded.plugin.tokenize(text)[: min(most, loaded.plugin.config.max_position_embeddings)]
        report = Report("accuracy", loaded.name)
        fast = score(loaded, ids)
    with settings.load(suite, suite.decode.quick(), dtype="float32") as loaded:
        exact = score(loaded, ids)
    agreement = (fast.best == exact.best).double().mean().item()
    said = f"{len(ids)} tokens of {_TEXT}"
    report.add(f"perplexity, {dtype}", "", fast.perplexity, said)
    report.add("perplexity, float32", "", exact.perplexity, said)
    report.add("perplexity ratio", "", fast.perplexity / exact.perplexity, f"{dtype} by float32")
    report.add("same best token", "", agreement, "share of positions")
    report.metrics.accuracy_score = agreement
    report.metrics.resource_utilization = {
        "perplexity": fast.perplexity,
        "perplexity_float32": exact.perplexity,
    }
    return report


@torch.inference_mode()
def score(loaded: LoadedModel, ids: list[int]) -> Scores:
    """Score a text in chunks, each attending to those before it through a cache of its own."""
    device = loaded.device
    specs = serving_of(loaded.model).cache_specs
    caches = [spec.allocate(-(-len(ids) // _BLOCK), _BLOCK, 1, device) for spec in specs]
    tokens = torch.tensor(ids, device=device)
    keeps_state = any(spec.bytes_per_sequence() for spec in specs)
    slot = torch.zeros(1, dtype=torch.int64, device=device) if keeps_state else None
    nll, best = [], []
    for start in range(0, len(ids), _CHUNK):
        logits = loaded.model(_chunk(tokens, start, slot), caches)
        following = tokens[start + 1 : start + 1 + _CHUNK]
        logits = logits[: len(following)]
        nll.append(functional.cross_entropy(logits, following, reduction="none").cpu())
        best.append(logits.argmax(dim=-1).cpu())
    return Scores(torch.cat(nll), torch.cat(best))


def same_best(loaded: LoadedModel, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> float:
    """The share of the answers' tokens that are also this model's best ones, given the same tokens before them."""
    same = total = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        best = score(loaded, prompt + answer).best[len(prompt) - 1 :]
        same += int((best == torch.tensor(answer)).sum())
        total += len(answer)
    return same / total


def _chunk(tokens: Tensor, start: int, state_slot: Tensor | None) -> ForwardBatch:
    """One sequence's tokens from `start` on, whose blocks lie in order: slot and position are the same number."""
    part = tokens[start : start + _CHUNK]
    count, device = len(part), tokens.device
    positions = torch.arange(start, start + count, device=device)
    blocks = -(-len(tokens) // _BLOCK)
    return ForwardBatch(
        token_ids=part,
        positions=positions,
        query_start=torch.tensor([0, count], dtype=torch.int32, device=device),
        seq_lens=torch.tensor([start + count], dtype=torch.int32, device=device),
        block_tables=torch.arange(blocks, dtype=torch.int32, device=device)[None],
        slot_mapping=positions,
        state_slots=state_slot,
        last_token=torch.arange(count, device=device),
        max_query_len=count,
        max_seq_len=start + count,
    )
