"""Models whose next token is a function of the whole history, read back through three kinds of cache.

Whatever the engine gets wrong (a block table, a slot, a position, a chunk border) changes the history that is read
back, and with it the tokens. All compute the same function, so they must give the same tokens; one of them through two
kinds of cache at once. One more model soon repeats itself, one has a layer that drafts.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from inference_pio.cache.retention import EvictionPolicy
from inference_pio.cache.specs import PagedKV
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.engine.sequence import Sequence
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.sampling_params import SamplingParams
from support.fake_drafting import DraftingFake
from support.fake_states import StateSpec, fold, folded
from support.tiny_model import TinyModel

VOCAB = 50
EOS = 0
NAN_TOKEN = 48
CRASH_TOKEN = 49


@functools.cache
def logits_of(state: int) -> torch.Tensor:
    logits = 2 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(state))
    logits[NAN_TOKEN] = logits[CRASH_TOKEN] = -1e30
    return logits


def greedy_reference(prompt: list[int], num_tokens: int) -> list[int]:
    """The definition, without an engine: fold the history, take the largest logit."""
    state, answer = 0, []
    for token_id in prompt:
        state = fold(state, token_id)
    while len(answer) < num_tokens:
        answer.append(int(logits_of(state).argmax()))
        state = fold(state, answer[-1])
    return answer


class FakeModel(nn.Module):
    """Subclasses remember the step's tokens and fold each sequence's history."""

    def forward(self, batch, caches):
        start, states = batch.query_start.tolist(), []
        token_ids = batch.token_ids.tolist()
        if CRASH_TOKEN in token_ids:
            raise RuntimeError("kernel failed\nsecond line")
        for s in range(len(start) - 1):
            states += self.fold_sequence(batch, caches[0], s, start[s], start[s + 1])
        rows = [
            logits_of(states[row]) * (math.nan if token_ids[row] == NAN_TOKEN else 1.0)
            for row in batch.last_token.tolist()
        ]
        return torch.stack(rows) if rows else torch.empty(0, VOCAB)


class PagedModel(FakeModel):
    """Token ids and positions in the keys and values of a paged cache."""

    specs = (PagedKV(num_kv_heads=1, head_dim=1, dtype=torch.float32),)
    policy = PrefixPolicy(seed=("fake",))

    def fold_sequence(self, batch, cache, s, start, end):
        size = cache.k.shape[2]
        slots = batch.slot_mapping[start:end]
        cache.k[slots // size, 0, slots % size, 0] = batch.token_ids[start:end].float()
        cache.v[slots // size, 0, slots % size, 0] = batch.positions[start:end].float()
        length = int(batch.seq_lens[s])
        blocks = batch.block_tables[s].long()
        tokens = cache.k[blocks, 0, :, 0].flatten()[:length].long().tolist()
        positions = cache.v[blocks, 0, :, 0].flatten()[:length].long().tolist()
        if positions != list(range(length)):
            raise ValueError(f"positions {positions}")
        return self.fold_tokens(tokens, length - (end - start))

    def fold_tokens(self, tokens, num_before):
        return _fold_from(tokens, num_before)


class RepeatingModel(PagedModel):
    """The next token is a function of the last two, so that greedy answers go round in circles."""

    def fold_tokens(self, tokens, num_before):
        return [
            _fold_from(tokens[max(0, i - 1) : i + 1], 0)[-1] % 997 for i in range(num_before, len(tokens))
        ]


@dataclass(frozen=True)
class LatentSpec:
    """One wide row per token, blocks unrolled: another layout through the same seam."""

    def bytes_per_token(self):
        return 3 * 8

    def bytes_per_sequence(self):
        return 0

    def allocate(self, num_blocks, block_size, num_slots, device):  # noqa: ARG002
        return torch.full((num_blocks * block_size, 3), -1, dtype=torch.int64, device=device)


class LatentModel(FakeModel):
    specs = (LatentSpec(),)
    policy = PrefixPolicy(seed=("fake",))

    def fold_sequence(self, batch, cache, s, start, end):
        cache[batch.slot_mapping[start:end], 2] = batch.token_ids[start:end]
        length, size = int(batch.seq_lens[s]), self.block_size
        rows = (batch.block_tables[s].long()[:, None] * size + torch.arange(size)).flatten()[:length]
        return _fold_from(cache[rows, 2].tolist(), length - (end - start))


class StateModel(FakeModel):
    specs = (StateSpec(),)
    policy = PrefixPolicy(seed=("fake",), reuse="snapshots")

    def fold_sequence(self, batch, cache, s, start, end):
        return cache.run(batch, s, start, end)


class MixedModel(PagedModel):
    """A layer that keeps every token beside one that keeps state: they must have seen the same."""

    specs = (*PagedModel.specs, StateSpec())
    policy = PrefixPolicy(seed=("fake",), reuse="snapshots")

    def forward(self, batch, caches):
        self.states = caches[1]
        return super().forward(batch, caches)

    def fold_sequence(self, batch, cache, s, start, end):
        expected = super().fold_sequence(batch, cache, s, start, end)
        if self.states.run(batch, s, start, end) != expected:
            raise ValueError("the state is not that of the tokens before")
        return expected


def _fold_from(tokens, num_before):
    return folded(0, tokens)[num_before:]


MODELS = {
    "paged": PagedModel,
    "latent": LatentModel,
    "state": StateModel,
    "mixed": MixedModel,
    "repeating": RepeatingModel,
    "drafting": lambda: DraftingFake(logits_of, VOCAB),
    "qwen3_next": functools.partial(TinyModel, "qwen3_next", VOCAB),
    "llama": functools.partial(TinyModel, "llama", VOCAB),
    "evicting": functools.partial(TinyModel, "llama", VOCAB),
}


def make_engine(
    kind: str = "paged", policy: PrefixPolicy | None = None, tier=None, **overrides
) -> EngineCore:
    sizes = {
        "max_model_len": 64,
        "block_size": 4,
        "num_blocks": 64,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 32,
    }
    if kind == "evicting":
        sizes["eviction"] = EvictionPolicy(budget=20, sinks=2, recent=4, watched=3, stride=4)
    config = EngineConfig(**{**sizes, **overrides})
    model = MODELS[kind]()
    model.block_size = config.block_size
    return EngineCore(
        model,
        model.specs,
        config,
        vocab_size=VOCAB,
        eos_token_ids=[EOS],
        prefix_policy=policy or model.policy,
        device=torch.device("cpu"),
        tier=tier,
    )


class Oracle:
    """Stands in for `Speculation`: drafts what is known to come, now and then with something wrong in it."""

    def __init__(self, engine: EngineCore, answer_of: Callable[[Sequence], list[int]], seed: int) -> None:
        self.num_drafted = self.num_predicted = self.num_accepted_predictions = 0
        self._engine, self._answer_of, self._random = engine, answer_of, random.Random(seed)

    def draft(self, scheduled):
        drafts, draw = {}, self._random
        room = self._engine.config.max_num_batched_tokens - sum(scheduled.values())
        for sequence, count in scheduled.items():
            most = min(sequence.request.max_len - 1, sequence.decision.watched_from) - sequence.num_tokens
            left = min(room, most, draw.randint(0, 7))
            if self._engine._states is not None:
                left = min(left, self._engine.config.max_drafts - sum(map(len, drafts.values())))
            decoding = sequence.num_computed_tokens + count == sequence.num_tokens
            if count > 1 or not decoding or not sequence.num_generated_tokens or left <= 0:
                continue
            known = self._answer_of(sequence)[sequence.num_generated_tokens :]
            tokens = (known + draw.choices(range(1, VOCAB), k=left))[:left]
            if draw.random() < 0.5:
                tokens[draw.randrange(left)] = draw.randrange(1, CRASH_TOKEN)
            tokens = [token if token != CRASH_TOKEN else 1 for token in tokens]
            if tokens := tokens[: self._engine._blocks.make_room(sequence, left)]:
                drafts[sequence] = tokens
                room -= len(tokens)
                self.num_drafted += len(tokens)
        return drafts

    def settle(self, sequence: Sequence, accepted: int) -> None:
        assert 0 <= accepted <= 7
        assert sequence.num_tokens > accepted

    def record(self, seconds: float) -> None:
        assert seconds >= 0


def run(engine: EngineCore, *, max_steps: int = 100_000) -> dict[tuple[str, int], list]:
    """Step to the end; the updates of each answer."""
    updates: dict[tuple[str, int], list] = {}
    for _ in range(max_steps):
        if not engine.has_work:
            return updates
        for update in engine.step():
            updates.setdefault((update.request_id, update.index), []).append(update)
        engine.check_integrity()
    raise AssertionError("the engine does not come to an end")


def tokens_of(updates) -> list[int]:
    return [token_id for update in updates for token_id in update.token_ids]


def answer(prompt: list[int], params: SamplingParams, kind: str = "paged", **overrides) -> list[list[int]]:
    """The answers that a request gets when it is alone."""
    engine = make_engine(kind, **overrides)
    engine.add_request("alone", prompt, params)
    updates = run(engine)
    return [tokens_of(updates["alone", i]) for i in range(params.n)]


@pytest.fixture(scope="session")
def fake():
    """The functions above, by name."""

    class Namespace:
        pass

    namespace = Namespace()
    for name in (
        "VOCAB",
        "EOS",
        "NAN_TOKEN",
        "CRASH_TOKEN",
        "MODELS",
        "greedy_reference",
        "logits_of",
        "make_engine",
        "run",
    ):
        setattr(namespace, name, globals()[name])
    namespace.tokens_of, namespace.answer, namespace.Oracle = tokens_of, answer, Oracle
    return namespace
