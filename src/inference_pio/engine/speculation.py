"""Whether, and how far ahead, to guess: speculative decoding without a second model.

A decoding sequence may bring drafts into a step: tokens that it has not got yet, guessed by `SuffixMatcher` from its
own text. The model computes them beside the sequence's last token, in one pass over its weights, and gives logits for
each. The sampler then draws at each position, in order, the token that it would have drawn there anyway: a draft that
is that token is accepted, and the first one that is not is replaced by the token drawn, behind which the drafts mean
nothing any more.

This is exact, greedy or not: the sampler's token at a position is a function of the logits there, of the tokens
before and of a random number that depends on seed, answer and position alone (`random.py`). Whether a token was
drafted is no part of it. (Speculative sampling, Leviathan et al. 2023, needs a rule of acceptance because its random
numbers are not fixed to positions.) As everywhere, rounding of the matrix products may differ with the batch's size.

Drafts are no part of the sequence. What they left in the cache counts once they are accepted; else it is overwritten.
Recurrent state cannot be overwritten: it stays in front of the drafts until they are accepted (`state_slots.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from inference_pio.engine.acceptance import Acceptance
from inference_pio.engine.block_manager import BlockManager
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.drafting import SuffixMatcher
from inference_pio.engine.sequence import Drafts, Sequence
from inference_pio.engine.step_costs import DRAFT_COUNTS, StepCosts

# Tokens over which acceptance is averaged: of one sequence, and of all, from which a new sequence starts.
_SEQUENCE_MEMORY, _ENGINE_MEMORY = 16, 128
# Expected tokens per second over those of a plain step: the least for which drafts are made.
_LEAST_GAIN = 1.05


@dataclass(frozen=True, slots=True)
class Drafter:
    """What one sequence may repeat, and how often that came true."""

    matcher: SuffixMatcher
    acceptance: Acceptance


class Speculation:
    """Drafts for the sequences of each step, as many as promise the most tokens per second; often none.

    Expected tokens come from `Acceptance`, seconds from `StepCosts`: with many sequences a row more costs as much as
    a sequence more, and the same comparison says so. Only speed depends on it, never a token.
    """

    def __init__(self, config: EngineConfig, blocks: BlockManager) -> None:
        self.num_drafted = 0
        self._most = min(config.speculation, DRAFT_COUNTS[-1])
        self._budget = config.max_num_batched_tokens
        self._blocks = blocks
        self._acceptance = Acceptance(_ENGINE_MEMORY)
        self._costs: dict[int, StepCosts] = {}
        self._step: tuple[StepCosts, int] | None = None

    def draft(self, scheduled: dict[Sequence, int]) -> Drafts:
        """Drafts for a step, where its budget and the blocks leave room for them."""
        self._step = None
        decoding = [s for s, count in scheduled.items() if s.num_generated_tokens and _is_last(s, count)]
        if not decoding:
            return {}
        costs = self._costs.get(len(decoding))
        if costs is None:
            costs = self._costs[len(decoding)] = StepCosts()
        drafts: Drafts = {}
        if ranked := self._ranked(decoding):
            del ranked[max(0, self._budget - sum(scheduled.values())) :]
            chances = [chance for chance, _ in ranked]
            count = best_count(costs, len(decoding), chances)
            drafts = self._propose([decoding[which] for _, which in ranked[:count]])
        num_drafts = sum(map(len, drafts.values()))
        self.num_drafted += num_drafts
        if len(decoding) == len(scheduled):
            self._step = costs, num_drafts
        return drafts

    def record(self, seconds: float) -> None:
        """How long the step took that was drafted last; those that also computed prompts do not compare."""
        if self._step is not None:
            costs, num_drafts = self._step
            costs.record(num_drafts, seconds)

    def _ranked(self, decoding: list[Sequence]) -> list[tuple[float, int]]:
        """The chance of every draft that could be made with the place of its sequence, best first.

        A sequence's chances fall from draft to draft, so its first ones come first.
        """
        ranked = []
        for which, sequence in enumerate(decoding):
            drafter = sequence.drafter
            if drafter is None:
                acceptance = Acceptance(_SEQUENCE_MEMORY, self._acceptance)
                drafter = sequence.drafter = Drafter(SuffixMatcher(sequence.token_ids), acceptance)
            outcomes = drafter.matcher.advance()
            drafter.acceptance.record(outcomes)
            self._acceptance.record(outcomes)
            if length := drafter.matcher.length:
                # A step gives one token more than it accepts, so the last one of an answer needs no draft.
                most = min(self._most, sequence.request.max_len - sequence.num_tokens - 1)
                ranked += [(chance, which) for chance in drafter.acceptance.chances(length, most)]
        ranked.sort(reverse=True)
        return ranked

    def _propose(self, chosen: list[Sequence]) -> Drafts:
        """As many drafts for a sequence as it is chosen times, or as there are blocks for."""
        drafts: Drafts = {}
        for sequence in dict.fromkeys(chosen):
            assert sequence.drafter is not None, "its chances came from there"
            room = self._blocks.make_room(sequence, chosen.count(sequence))
            if room:
                drafts[sequence] = sequence.drafter.matcher.propose(room)
        return drafts


def _is_last(sequence: Sequence, count: int) -> bool:
    """Whether what is computed of it is its last token and no other: a step may also end where a snapshot is due."""
    return count == 1 and sequence.num_computed_tokens + 1 == sequence.num_tokens


def best_count(costs: StepCosts, num_sequences: int, chances: list[float]) -> int:
    """How many drafts, the likeliest first, give the most tokens per second; 0 where none give more than a plain step.

    Nothing has to be tried for its own sake: what matches are worth is seen without drafting, and costs that are not
    known are guessed low, so that they are found out when a draft is likely enough.
    """
    if not chances or not costs.comparable:
        return 0
    expected = list(accumulate(chances, initial=float(num_sequences)))
    gain, best = max(
        (expected[count] / num_sequences / ratio, count) for count, ratio in costs.ratios(len(chances))
    )
    return best if gain >= _LEAST_GAIN else 0
