"""What a step tells the outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from inference_pio.engine.ledger import Totals, Usage
from inference_pio.errors import GenerationError
from inference_pio.outputs import CacheExplanation, FinishReason, TokenLogprobs


@dataclass(frozen=True, slots=True)
class SequenceUpdate:
    """What one step added to one answer.

    index              which of the request's answers
    token_ids          new tokens, the one that ended the answer included; none if it was aborted or failed
    logprobs           one entry per new token, if the request asked for them
    stop_reason        the stop token of the request that ended the answer; None for the model's own
    error              why `finish_reason` is "error"
    usage              what the request has taken: it goes on counting
    num_cached_tokens  prompt tokens that the prefix cache saved; `cache` says why as many, where that was asked for
    """

    request_id: str
    index: int
    token_ids: tuple[int, ...]
    num_cached_tokens: int
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    error: GenerationError | None = None
    cache: CacheExplanation | None = None
    usage: Usage | None = None


def joined(updates: Iterable[SequenceUpdate]) -> list[SequenceUpdate]:
    """One update per answer in place of many, in the order in which the answers began."""
    result: dict[int, list[SequenceUpdate]] = {}
    for update in updates:
        result.setdefault(update.index, []).append(update)
    return [_joined(parts) for parts in result.values()]


def _joined(parts: list[SequenceUpdate]) -> SequenceUpdate:
    scores = [score for part in parts for score in part.logprobs or ()]
    # Of a list: what is made of a generator is cut to its length at last, and CPython keeps thousands of each length.
    token_ids = tuple([token_id for part in parts for token_id in part.token_ids])
    return replace(parts[-1], token_ids=token_ids, logprobs=scores or None)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Sequences and blocks now, and tokens of the step that runs; `work`, preemptions and tokens since the engine was
    made.

    prefix_query_tokens are prompt tokens that were looked up in the prefix cache, prefix_hit_tokens those found, of
    which prefix_tier_hit_tokens came back from the tier below memory;
    draft_tokens were guessed by speculation, of which accepted_draft_tokens became tokens of an answer; of these the
    model's own layer for drafts made predicted_draft_tokens and accepted_predicted_tokens; evicted_tokens are those
    that sequences have given up (`eviction.py`).
    """

    num_running: int
    num_waiting: int
    blocks_used: int
    blocks_total: int
    work: Totals
    tokens_under_way: int
    preemptions: int
    prompt_tokens: int
    generation_tokens: int
    prefix_query_tokens: int
    prefix_hit_tokens: int
    prefix_tier_hit_tokens: int
    draft_tokens: int
    accepted_draft_tokens: int
    predicted_draft_tokens: int
    accepted_predicted_tokens: int
    evicted_tokens: int

    @property
    def steps(self) -> int:
        return self.work.steps
