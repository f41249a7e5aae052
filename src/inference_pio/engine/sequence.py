"""What is known about one request and each of its answers."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from inference_pio.cache.retention import NEVER, Decision
from inference_pio.outputs import CacheExplanation, FinishReason
from inference_pio.plugin.media import PromptMedia
from inference_pio.sampling_params import SamplingParams

if TYPE_CHECKING:
    from inference_pio.engine.ledger import Usage
    from inference_pio.engine.script import Script
    from inference_pio.engine.speculation import Drafter


@dataclass(eq=False, slots=True)
class Request:
    """What was asked. Its answers (`params.n` of them) are its sequences, until all of them have ended.

    seed           what the random numbers come from: `params.seed`, or drawn
    end_token_ids  the model's end-of-text tokens and the request's own stop tokens; none before `min_tokens`
    max_len        tokens, prompt included, at which an answer is finished for its length
    usage          what it has taken so far
    media          the prompt's images; None where it has none
    script         the answer, where it is given
    """

    request_id: str
    prompt_len: int
    params: SamplingParams
    seed: int
    eos_token_ids: frozenset[int]
    end_token_ids: tuple[int, ...]
    max_len: int
    plain_greedy: bool
    usage: Usage
    media: PromptMedia | None = None
    script: Script | None = None
    sequences: list[Sequence] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Sequence:
    """One stream of tokens: a prompt and one answer to it.

    num_computed_tokens  tokens whose keys, values or state the cache holds
    num_cached_tokens    prompt tokens that were found in the prefix cache; None before the first admission
    slot                 row of the block tables, and slot of recurrent state, while it runs
    block_table          blocks it holds, in order; block_digests: prefix digests of its full blocks, as far as known
    cuts                 numbers of tokens up to which it is computed exactly, for a snapshot of its state to be taken
    num_held             of the tokens scheduled last, those behind a cut: its state takes them in after the step
    num_shared_blocks    leading blocks that are published in the prefix index (or have an equal twin there)
    explanation          what the prefix cache gave it and why no more, where that was asked for
    drafter              where its drafts come from, once it has been asked for any
    num_evicted_tokens   of the computed ones, those that the cache does not hold any more: whole blocks
    decision             when some of its blocks are given up next; never, where everything stays
    votes                what the tokens in front of that decision have attended to so far (`eviction.py`)
    """

    request: Request
    index: int
    arrival: int
    token_ids: list[int]
    num_computed_tokens: int = 0
    num_cached_tokens: int | None = None
    slot: int | None = None
    block_table: list[int] = field(default_factory=list)
    block_digests: list[bytes] = field(default_factory=list)
    cuts: tuple[int, ...] = ()
    num_held: int = 0
    num_shared_blocks: int = 0
    finish_reason: FinishReason | None = None
    explanation: CacheExplanation | None = None
    drafter: Drafter | None = None
    num_evicted_tokens: int = 0
    decision: Decision = NEVER
    votes: list[Tensor] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_generated_tokens(self) -> int:
        return len(self.token_ids) - self.request.prompt_len

    def append(self, token_id: int) -> FinishReason | None:
        """Add a generated token; the reason if it ends the answer."""
        self.token_ids.append(token_id)
        if self.ends_by_model(token_id) or token_id in self.request.params.stop_token_ids:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.request.max_len:
            self.finish_reason = "length"
        return self.finish_reason

    def ends_by_model(self, token_id: int) -> bool:
        """Whether it is one of the model's own end-of-text tokens, and those count."""
        return token_id in self.request.eos_token_ids and not self.request.params.ignore_eos


def answers(request: Request, arrival: int, prompt: list[int], done: Known) -> list[Sequence]:
    """The answers to a prompt, as they wait; those whose tokens are known go on behind them."""
    known = done or [()] * request.params.n
    return [
        Sequence(request, index, arrival + index, [*prompt, *tokens])
        for index, tokens in enumerate(known)
        if tokens is not None
    ]


Known = Items[Items[int] | None]
"""Of each answer the tokens that there are already, from another engine; None: it is whole. Empty: of none any."""

Drafts = dict[Sequence, list[int]]
"""Guesses of what comes after a sequence's known tokens, for one step; they are no part of it (`speculation.py`)."""
