"""Whether, and how far ahead, to guess: speculative decoding without a second model.

A decoding sequence may bring drafts into a step: tokens that it has not got yet, guessed by `SuffixMatcher` from its
own text or, where the model has a layer for that, by `Predictor` (`mtp.py`). The model computes them beside the
sequence's last token, in one pass over its weights, and gives logits for each. The sampler then draws at each
position, in order, the token that it would have drawn there anyway: a draft that is that token is accepted, and the
first one that is not is replaced by the token drawn, behind which the drafts mean nothing any more.

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
from typing import NamedTuple

from inference_pio.engine.acceptance import Acceptance
from inference_pio.engine.block_manager import BlockManager
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.drafting import SuffixMatcher
from inference_pio.engine.mtp import MOST_DRAFTS, DepthAcceptance, Predictor
from inference_pio.engine.sequence import Drafts, Sequence
from inference_pio.engine.step_costs import DRAFT_COUNTS, GUESSED_SHARE_OF_PASSES, StepCosts

# Tokens over which acceptance is averaged: of one sequence, and of all, from which a new sequence starts.
_SEQUENCE_MEMORY, _ENGINE_MEMORY = 16, 128
# Expected tokens per second over those of a plain step: the least for which drafts are made.
_LEAST_GAIN = 1.05


@dataclass(frozen=True, slots=True)
class Drafter:
    """What one sequence may repeat, and how often that came true; what the model's own layer is worth to it."""

    matcher: SuffixMatcher
    acceptance: Acceptance
    depths: DepthAcceptance


class _Costs(NamedTuple):
    """Of steps of one number of sequences: drafts that cost nothing to make, and those of which any cost passes."""

    matched: StepCosts
    predicted: StepCosts


class _Plan(NamedTuple):
    """Expected tokens per second over those of a plain step, and for each draft worth it the place of its sequence."""

    gain: float
    chosen: list[int]


class Speculation:
    """Drafts for the sequences of each step, as many as promise the most tokens per second; often none.

    Expected tokens come from `Acceptance` and `DepthAcceptance`, seconds from `StepCosts`: with many sequences a row
    more costs as much as a sequence more, and the same comparison says so. Two plans are compared: one with matches
    only, one in which each sequence has whatever promises it more. Only speed depends on it, never a token.
    """

    def __init__(
        self, config: EngineConfig, blocks: BlockManager, predictor: Predictor | None = None
    ) -> None:
        self.num_drafted = self.num_predicted = self.num_accepted_predictions = 0
        self._most = min(config.speculation, DRAFT_COUNTS[-1])
        self._budget = config.max_num_batched_tokens
        self._blocks, self._predictor = blocks, predictor
        self._acceptance, self._depths = Acceptance(_ENGINE_MEMORY), DepthAcceptance(_ENGINE_MEMORY)
        self._predictions: dict[
            Sequence, int
        ] = {}  # how many of a sequence's drafts are the layer's, in this step
        self._costs: dict[int, _Costs] = {}
        self._step: tuple[_Costs, int, bool] | None = None

    def draft(self, scheduled: dict[Sequence, int]) -> Drafts:
        """Drafts for a step, where its budget and the blocks leave room for them."""
        self._step, self._predictions = None, {}
        decoding = [s for s, count in scheduled.items() if s.num_generated_tokens and _is_last(s, count)]
        if not decoding:
            return {}
        costs = self._costs.get(len(decoding))
        if costs is None:
            costs = self._costs[len(decoding)] = _Costs(StepCosts(), StepCosts(GUESSED_SHARE_OF_PASSES))
        room = max(0, self._budget - sum(scheduled.values()))
        chances = [self._matched(sequence) for sequence in decoding]
        plan, predicted = self._plan(costs.matched, chances, room), set[int]()
        if self._predictor is not None:
            better = self._predicted(decoding, chances)
            other = self._plan(costs.predicted, chances, room)
            if other.gain > plan.gain:
                plan, predicted = other, better.intersection(other.chosen)
        drafts = self._propose(
            [decoding[which] for which in plan.chosen], {decoding[which] for which in predicted}
        )
        if self._predictor is not None:
            self._forget(decoding)
        num_drafts = sum(map(len, drafts.values()))
        self.num_drafted += num_drafts
        if len(decoding) == len(scheduled):
            self._step = costs, num_drafts, bool(self._predictions)
        return drafts

    def settle(self, sequence: Sequence, accepted: int) -> None:
        """What became of one sequence's drafts: so many are its tokens now."""
        if not (predicted := self._predictions.get(sequence, 0)):
            return
        self.num_accepted_predictions += accepted
        if sequence.finish_reason is None:  # behind an answer's end even right ones are lost
            for belief in (self._drafter(sequence).depths, self._depths):
                belief.record(predicted, accepted)

    def record(self, seconds: float) -> None:
        """How long the step took that was drafted last; those that also computed prompts do not compare."""
        if self._step is None:
            return
        costs, num_drafts, predicted = self._step
        if predicted or not num_drafts:
            costs.predicted.record(num_drafts, seconds)
        if not predicted:
            costs.matched.record(num_drafts, seconds)

    def _matched(self, sequence: Sequence) -> list[float]:
        """The chance of each draft that its own text gives; it is also seen what came true of the last match."""
        drafter = self._drafter(sequence)
        outcomes = drafter.matcher.advance()
        drafter.acceptance.record(outcomes)
        self._acceptance.record(outcomes)
        length = drafter.matcher.length
        return drafter.acceptance.chances(length, self._room_for_answer(sequence)) if length else []

    def _predicted(self, decoding: list[Sequence], chances: list[list[float]]) -> set[int]:
        """Put in the chances of the layer's drafts where they promise more than a match; the places where they do.

        Where the hidden state behind the last computed token is not known, drafts would be guesses out of nothing.
        """
        assert self._predictor is not None, "asked where a layer drafts"
        better = set()
        for which, sequence in enumerate(decoding):
            if not self._predictor.knows(sequence):
                continue
            most = min(MOST_DRAFTS, self._room_for_answer(sequence))
            found = self._drafter(sequence).depths.chances(most)
            if sum(found) > sum(chances[which]):
                chances[which] = found
                better.add(which)
        return better

    def _plan(self, costs: StepCosts, chances: list[list[float]], room: int) -> _Plan:
        """A sequence's chances fall from draft to draft, so its first ones come first."""
        ranked = sorted(
            ((chance, which) for which, found in enumerate(chances) for chance in found), reverse=True
        )
        del ranked[room:]
        gain, count = best_count(costs, len(chances), [chance for chance, _ in ranked])
        return _Plan(gain, [which for _, which in ranked[:count]])

    def _propose(self, chosen: list[Sequence], predicted: set[Sequence]) -> Drafts:
        """As many drafts for a sequence as it is chosen times, or as there are blocks for."""
        drafts: Drafts = {}
        self._predictions = {}
        for sequence in dict.fromkeys(chosen):
            room = self._blocks.make_room(sequence, chosen.count(sequence))
            if room and sequence in predicted:
                self._predictions[sequence] = room
            elif room:
                drafts[sequence] = self._drafter(sequence).matcher.propose(room)
        if self._predictor is not None and self._predictions:
            drafts |= self._predictor.draft(self._predictions, self._blocks.tables)
            self.num_predicted += sum(self._predictions.values())
        return drafts

    def _forget(self, decoding: list[Sequence]) -> None:
        """What the layer's drafts are worth is not seen where it makes none: belief in it returns by and by."""
        if not self._predictions:
            self._depths.forget()
        for sequence in decoding:
            if sequence not in self._predictions:
                self._drafter(sequence).depths.forget()

    def _drafter(self, sequence: Sequence) -> Drafter:
        if sequence.drafter is None:
            acceptance = Acceptance(_SEQUENCE_MEMORY, self._acceptance)
            depths = DepthAcceptance(_SEQUENCE_MEMORY, self._depths)
            sequence.drafter = Drafter(SuffixMatcher(sequence.token_ids), acceptance, depths)
        return sequence.drafter

    def _room_for_answer(self, sequence: Sequence) -> int:
        """A step gives one token more than it accepts, so the last one of an answer needs no draft. Nor is any token
        drafted whose attention is watched: it may be no token of the sequence.
        """
        last = min(sequence.request.max_len - 1, sequence.decision.watched_from)
        return max(0, min(self._most, last - sequence.num_tokens))


def _is_last(sequence: Sequence, count: int) -> bool:
    """Whether what is computed of it is its last token and no other: a step may also end where a snapshot is due."""
    return count == 1 and sequence.num_computed_tokens + 1 == sequence.num_tokens


def best_count(costs: StepCosts, num_sequences: int, chances: list[float]) -> tuple[float, int]:
    """(gain, drafts): how many, the likeliest first, give the most tokens per second, over those of a plain step.

    (1, 0) where none give more than a plain step. Nothing has to be tried for its own sake: what matches are worth is
    seen without drafting, and costs that are not known are guessed low, so that they are found out when a draft is
    likely enough.
    """
    if not chances or not costs.comparable:
        return 1.0, 0
    expected = list(accumulate(chances, initial=float(num_sequences)))
    gain, best = max(
        (expected[count] / num_sequences / ratio, count) for count, ratio in costs.ratios(len(chances))
    )
    return (gain, best) if gain >= _LEAST_GAIN else (1.0, 0)
