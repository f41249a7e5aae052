"""A model with a layer that drafts, whose hidden states are the folded history."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from inference_pio.plugin.facts import PrefixPolicy
from support.fake_states import fold, folded


@dataclass(frozen=True)
class Spec:
    """Per token a number of the main model, or two of the drafting layer, with the position beside them."""

    def bytes_per_token(self):
        return 24

    def bytes_per_sequence(self):
        return 0

    def allocate(self, num_blocks, block_size, num_slots, device):  # noqa: ARG002
        return torch.full((num_blocks * block_size, 3), -1, dtype=torch.int64, device=device)


class DraftingFake(nn.Module):
    """Hidden states are the folded history, exactly, so that the layer foretells the next token where it wants to.

    It keeps (hidden state before, token, position) of every token and reads all of them back on every draft: each must
    be what the model's own cache says of this history. Only zeros may stand in front of what was not computed here.
    """

    can_draft = True
    specs = (Spec(), Spec())

    policy = PrefixPolicy(seed=("fake",))
    block_size = 4

    def __init__(self, logits_of, vocab_size, right=lambda state: state % 4 != 0):
        super().__init__()
        self.logits_of, self.vocab_size, self.right = logits_of, vocab_size, right
        self.zeros = 0

    def forward(self, batch, caches):
        return self.forward_all(batch, caches)[0]

    def forward_all(self, batch, caches):
        rows = self._remember_tokens(batch, caches[0])
        hidden, starts = [], batch.query_start.tolist()
        for s, tokens in enumerate(rows):
            count = starts[s + 1] - starts[s]
            hidden += folded(0, tokens)[len(tokens) - count :]
        wanted = [self.logits_of(hidden[row]) for row in batch.last_token.tolist()]
        logits = torch.stack(wanted) if wanted else torch.empty(0, self.vocab_size)
        return logits, torch.tensor(hidden)[:, None]

    def remember(self, hidden, batch, caches):
        caches[1][batch.slot_mapping] = torch.stack((hidden[:, 0], batch.token_ids, batch.positions), 1)

    def draft(self, hidden, batch, caches):
        self.remember(hidden, batch, caches)
        logits, states = [], []
        for s, length in enumerate(batch.seq_lens.tolist()):
            entries = caches[1][self._places(batch, s, length)].tolist()
            main = caches[0][self._places(batch, s, length)][:, 2].tolist()
            state, unknown = 0, 0
            for position, (before, token, place) in enumerate(entries):
                assert place == position
                # What is behind the model's own cache are drafts, of which it knows nothing yet.
                assert token == main[position] or position >= length - 7
                assert before in (state, 0), "not the hidden state of the token before"
                unknown += before == 0 and position > 0
                state = fold(state, token)
            self.zeros += unknown
            # Without the state behind the last token of a shared prefix the layer cannot know what it should.
            state = fold(int(hidden[s, 0]), int(batch.token_ids[s]))
            shift = 0 if self.right(state) else 1
            logits.append(self.logits_of(state).roll(shift))
            states.append(state)
        return torch.stack(logits), torch.tensor(states)[:, None]

    def _remember_tokens(self, batch, cache):
        cache[batch.slot_mapping, 2] = batch.token_ids
        lengths = batch.seq_lens.tolist()
        return [cache[self._places(batch, s, length), 2].tolist() for s, length in enumerate(lengths)]

    def _places(self, batch, s, length):
        blocks = batch.block_tables[s].long()
        return (blocks[:, None] * self.block_size + torch.arange(self.block_size)).flatten()[:length]
