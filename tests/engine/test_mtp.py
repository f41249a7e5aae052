"""A model's own layer drafts: tokens stay what they are, and its cache holds what it should."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from inference_pio.engine import core
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.engine.mtp import DepthAcceptance
from inference_pio.engine.step_costs import DRAFT_COUNTS, StepCosts
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.sampling_params import SamplingParams

GREEDY = {"temperature": 0.0}


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

    def __init__(self, fake, block_size, right):
        super().__init__()
        self.fake, self.size, self.right = fake, block_size, right
        self.zeros = self.drafts = 0

    def forward_all(self, batch, caches):
        rows = self._remember_tokens(batch, caches[0])
        hidden, starts = [], batch.query_start.tolist()
        for s, tokens in enumerate(rows):
            count = starts[s + 1] - starts[s]
            hidden += self._states(tokens)[len(tokens) - count :]
        wanted = [self.fake.logits_of(hidden[row]) for row in batch.last_token.tolist()]
        logits = torch.stack(wanted) if wanted else torch.empty(0, self.fake.VOCAB)
        return logits, torch.tensor(hidden)[:, None]

    def remember(self, hidden, batch, caches):
        caches[1][batch.slot_mapping] = torch.stack((hidden[:, 0], batch.token_ids, batch.positions), 1)

    def draft(self, hidden, batch, caches):
        self.drafts += 1
        self.remember(hidden, batch, caches)
        logits, states = [], []
        for s, length in enumerate(batch.seq_lens.tolist()):
            entries = caches[1][self._places(batch, s, length)].tolist()
            main = caches[0][self._places(batch, s, length)][:, 2].tolist()
            state, known = 0, 0
            for position, (before, token, place) in enumerate(entries):
                assert place == position
                # What is behind the model's own cache are drafts, of which it knows nothing yet.
                assert token == main[position] or position >= length - 7
                assert before in (state, 0), "not the hidden state of the token before"
                known += before == 0 and position > 0
                state = self.fake.fold(state, token)
            self.zeros += known
            # Without the state behind the last token of a shared prefix the layer cannot know what it should.
            state = self.fake.fold(int(hidden[s, 0]), int(batch.token_ids[s]))
            shift = 0 if self.right(state) else 1
            logits.append(self.fake.logits_of(state).roll(shift))
            states.append(state)
        return torch.stack(logits), torch.tensor(states)[:, None]

    def _remember_tokens(self, batch, cache):
        cache[batch.slot_mapping, 2] = batch.token_ids
        lengths = batch.seq_lens.tolist()
        return [cache[self._places(batch, s, length), 2].tolist() for s, length in enumerate(lengths)]

    def _places(self, batch, s, length):
        blocks = batch.block_tables[s].long()
        return (blocks[:, None] * self.size + torch.arange(self.size)).flatten()[:length]

    def _states(self, tokens):
        state, states = 0, []
        for token in tokens:
            state = self.fake.fold(state, token)
            states.append(state)
        return states


def always(_):
    return True


def never(_):
    return False


def mostly(state):
    return state % 4 != 0


def make_engine(fake, right=always, **overrides):
    sizes = {
        "max_model_len": 64,
        "block_size": 4,
        "num_blocks": 64,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 32,
        "speculation": 7,
    }
    config = EngineConfig(**{**sizes, **overrides})
    model = DraftingFake(fake, config.block_size, right)
    return EngineCore(
        model,
        model.specs,
        config,
        vocab_size=fake.VOCAB,
        eos_token_ids=[fake.EOS],
        prefix_policy=PrefixPolicy(seed=("fake",)),
        device=torch.device("cpu"),
    )


@pytest.fixture
def costs_nothing(monkeypatch):
    monkeypatch.setattr(StepCosts, "comparable", True)
    monkeypatch.setattr(
        StepCosts, "ratios", lambda _, most: [(count, 1.0) for count in DRAFT_COUNTS if count <= most]
    )


def prompt_of(length, seed=0):
    return random.Random(seed).choices(range(1, 48), k=length)


def params_of(seed=0, **fields):
    return SamplingParams(**{"max_tokens": 30, "seed": seed, "ignore_eos": True, **fields})


def answers(fake, engine, requests):
    for name, (prompt, params) in requests.items():
        engine.add_request(name, prompt, params)
    return {answer: fake.tokens_of(got) for answer, got in fake.run(engine).items()}


@pytest.mark.parametrize("right", [always, mostly, never])
@pytest.mark.parametrize(
    "fields",
    [
        GREEDY,
        {"temperature": 1.3, "top_p": 0.9},
        {**GREEDY, "repetition_penalty": 1.3},
        {"temperature": 1.0, "n": 3},
    ],
)
def test_tokens_are_those_without_drafts(fake, costs_nothing, right, fields):  # noqa: ARG001
    requests = {f"r{i}": (prompt_of(3 + 5 * i, i), params_of(i, **fields)) for i in range(4)}
    expected = {
        (name, i): tokens
        for name, request in requests.items()
        for i, tokens in enumerate(fake.answer(*request, "paged"))
    }
    engine = make_engine(fake, right)
    assert answers(fake, engine, requests) == expected
    stats = engine.stats()
    assert 0.9 * stats.draft_tokens < stats.predicted_draft_tokens <= stats.draft_tokens
    assert stats.accepted_predicted_tokens <= stats.accepted_draft_tokens
    if fields is GREEDY:
        share = stats.accepted_draft_tokens / stats.draft_tokens
        assert {always: share > 0.97, mostly: 0.4 < share < 0.9, never: share == 0}[right]
        assert engine.stats().steps < (40 if right is always else 100)


@pytest.mark.parametrize("budget", [2, 5, 48])
def test_beside_prompts_in_chunks_with_few_blocks(fake, costs_nothing, budget):  # noqa: ARG001
    """Sequences are put out and computed again, and what they share is found in the prefix cache."""
    requests = {
        f"r{i}": ([*prompt_of(9), *prompt_of(3 + 4 * i, i)], params_of(i, **GREEDY)) for i in range(6)
    }
    engine = make_engine(fake, num_blocks=18, max_num_seqs=6, max_num_batched_tokens=budget)
    found = answers(fake, engine, requests)
    assert found == {(name, 0): fake.answer(*request)[0] for name, request in requests.items()}
    stats = engine.stats()
    assert stats.preemptions > 0
    assert stats.prefix_hit_tokens > 0
    assert engine._predictor._model.zeros > 0, "nothing was drafted behind a prefix that was found"
    assert stats.accepted_draft_tokens / stats.draft_tokens > 0.9
    assert stats.blocks_used == 0


def test_aborted_requests_leave_nothing_to_those_that_get_their_slots(fake, costs_nothing):  # noqa: ARG001
    engine = make_engine(fake, max_num_seqs=2)
    for i in range(6):
        engine.add_request(f"r{i}", prompt_of(9, i), params_of(i, **GREEDY))
        for _ in range(3):
            engine.step()
        engine.abort(f"r{i}")
    engine.step()
    requests = {f"s{i}": (prompt_of(9, 10 + i), params_of(i, **GREEDY)) for i in range(3)}
    assert answers(fake, engine, requests) == {
        (name, 0): fake.greedy_reference(prompt, 30) for name, (prompt, _) in requests.items()
    }


def test_a_layer_that_fails_fails_the_requests_of_its_step_only(fake, costs_nothing):  # noqa: ARG001
    def falls_over(_):
        raise RuntimeError("no more memory\nsecond line")

    engine = make_engine(fake, falls_over)
    engine.add_request("r", prompt_of(9), params_of(**GREEDY))
    updates = fake.run(engine)["r", 0]
    assert updates[-1].finish_reason == "error"
    assert str(updates[-1].error).endswith("the model failed: RuntimeError: no more memory")
    engine._predictor._model.right = always
    assert answers(fake, engine, {"s": (prompt_of(9), params_of(**GREEDY))})["s", 0] == fake.greedy_reference(
        prompt_of(9), 30
    )


# What is drafted, and how many -----------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def _charge(model, name, cost, clock):
    method = getattr(model, name)

    def costly(*args):
        clock.now += cost(args[-2])
        return method(*args)

    setattr(model, name, costly)


def timed(fake, monkeypatch, right, per_pass, per_row=0.02, **overrides):
    """Seconds, tokens and engine of one long answer: a step takes one second and its rows, a pass `per_pass`."""
    clock = Clock()
    monkeypatch.setattr(core, "perf_counter", clock)
    engine = make_engine(fake, right, max_model_len=1024, num_blocks=512, **overrides)
    model = engine._predictor._model if engine._predictor else engine._runner._model
    for name, cost in (
        ("forward_all", lambda batch: 1 + per_row * (len(batch.token_ids) - 1)),
        ("draft", lambda _: per_pass),
    ):
        _charge(model, name, cost, clock)
    found = answers(fake, engine, {"r": (prompt_of(9), params_of(**GREEDY, max_tokens=600))})
    assert found["r", 0] == fake.greedy_reference(prompt_of(9), 600)
    return clock.now, engine


def test_right_drafts_pay_and_wrong_ones_cost_little(fake, monkeypatch):
    seconds, engine = timed(fake, monkeypatch, always, 0.1)
    assert seconds < 300
    assert engine.stats().steps < 250
    seconds, engine = timed(fake, monkeypatch, never, 0.1)
    assert 600 < seconds < 600 * 1.03
    assert engine.stats().predicted_draft_tokens < 100


def test_passes_as_expensive_as_steps_are_only_tried(fake, monkeypatch):
    seconds, engine = timed(fake, monkeypatch, mostly, 1.0)
    assert seconds < 600 * 1.03
    assert 0 < engine.stats().predicted_draft_tokens < 60


def test_fewer_drafts_where_they_come_true_less_often(fake, monkeypatch):
    drafted = []
    for right in (always, lambda state: state % 10 < 3):
        _, engine = timed(fake, monkeypatch, right, 0.05)
        stats = engine.stats()
        drafted.append(stats.predicted_draft_tokens / stats.steps)
    assert drafted[0] > 2 * drafted[1] > 0


def test_off_where_speculation_is(fake):
    engine = make_engine(fake, speculation=0)
    engine._runner._model.forward = lambda batch, caches: engine._runner._model.forward_all(batch, caches)[0]
    assert answers(fake, engine, {"r": (prompt_of(9), params_of(**GREEDY))})["r", 0] == fake.greedy_reference(
        prompt_of(9), 30
    )
    assert engine._predictor is None
    assert engine.stats().predicted_draft_tokens == 0


def test_rates_go_by_depth_and_come_back(fake):  # noqa: ARG001
    rates = DepthAcceptance(4)
    before = rates.chances(7)
    assert before == sorted(before, reverse=True)
    rates.record(3, 1)  # the first right, the second wrong, the third means nothing
    after = rates.chances(7)
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert after[2] / after[1] == pytest.approx(before[2] / before[1])
    for _ in range(40):
        rates.record(1, 0)
    assert rates.chances(7) == []
    for _ in range(5000):
        rates.forget()
    assert rates.chances(7)[0] == pytest.approx(before[0], abs=0.02)
