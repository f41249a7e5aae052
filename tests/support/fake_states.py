"""Recurrent state as small as it can be: one number per sequence, behind the contract of `cache/specs.py`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

PRIME = 2**61 - 1


def fold(state: int, token_id: int) -> int:
    return (state * 1_000_003 + token_id + 1) % PRIME


class FakeStates:
    """numbers [slots]: the histories so far, folded; drafts [R]: what the last step's drafts would fold in."""

    def __init__(self, num_slots: int) -> None:
        self.numbers = torch.full((num_slots,), 12345, dtype=torch.int64)
        self.drafts = torch.empty(0, dtype=torch.int64)

    def copy(self, source: int, target: int) -> None:
        self.numbers[target] = self.numbers[source]

    def reserve(self, num_drafts: int) -> None:
        self.drafts = torch.full((num_drafts,), -1, dtype=torch.int64)

    def commit(self, slot: int, first: int, count: int) -> None:
        assert count > 0
        tokens = self.drafts[first : first + count].tolist()
        assert len(tokens) == count
        assert -1 not in tokens
        # Whoever commits a draft twice is found out.
        self.drafts[first : first + count] = -1
        self.numbers[slot] = folded(int(self.numbers[slot]), tokens)[-1]

    def run(self, batch, s: int, start: int, end: int) -> list[int]:
        """The states behind the rows of sequence s; what its last rows, if they are drafts, add is remembered."""
        slot, tokens = int(batch.state_slots[s]), batch.token_ids[start:end].tolist()
        states = folded(0 if int(batch.positions[start]) == 0 else int(self.numbers[slot]), tokens)
        drafted = 0
        if batch.drafts is not None:
            drafted, first = int(batch.drafts[s]), int(batch.drafts[:s].sum())
            self.drafts[first : first + drafted] = batch.token_ids[end - drafted : end]
        assert drafted < len(states), "a step that is all drafts"
        self.numbers[slot] = states[-1 - drafted]
        return states


@dataclass(frozen=True)
class StateSpec:
    def bytes_per_token(self):
        return 0

    def bytes_per_sequence(self):
        return 8

    def bytes_per_draft(self):
        return 8

    def allocate(self, num_blocks, block_size, num_slots, device):  # noqa: ARG002
        return FakeStates(num_slots)


def folded(state: int, tokens: list[int]) -> list[int]:
    states = []
    for token_id in tokens:
        state = fold(state, token_id)
        states.append(state)
    return states
