"""Drafts change how fast tokens come, and nothing else."""

from __future__ import annotations

import math
import random

import pytest

from inference_pio.engine import core
from inference_pio.engine.step_costs import StepCosts
from inference_pio.errors import ConfigError, NonFiniteLogits
from inference_pio.sampling_params import SamplingParams

GREEDY = {"temperature": 0.0}
REQUESTS = {
    "greedy": GREEDY,
    "sampled": {"temperature": 1.3, "top_p": 0.9},
    "filters": {"temperature": 0.8, "top_k": 5, "min_p": 0.02},
    "repetition": {**GREEDY, "repetition_penalty": 1.3},
    "frequency": {"temperature": 0.7, "frequency_penalty": 0.6, "presence_penalty": 0.3},
    "bias": {**GREEDY, "logit_bias": {3: -100.0, 5: 4.0}},
    "minimum": {**GREEDY, "min_tokens": 20, "logit_bias": {0: 100.0}},
    "logprobs": {"temperature": 1.0, "logprobs": 3},
    "siblings": {"temperature": 1.0, "n": 3},
}


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(1, 48), k=length)


def params_of(seed: int = 0, **fields: object) -> SamplingParams:
    return SamplingParams(
        **{"max_tokens": 30, "seed": seed, "ignore_eos": "min_tokens" not in fields, **fields}
    )


class Clock:
    """The engine's clock, which a model moves on by what it says a step costs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timed(fake, monkeypatch):
    """An engine whose steps take as long as `cost(rows)` says, and its clock."""

    def make(kind, cost, **overrides):
        clock = Clock()
        monkeypatch.setattr(core, "perf_counter", clock)
        sizes = {"max_model_len": 1024, "num_blocks": 512, "max_num_batched_tokens": 512}
        engine = fake.make_engine(kind, **{**sizes, **overrides})

        def takes_time(module, args):  # noqa: ARG001
            clock.now += cost(len(args[0].token_ids))

        engine._runner._model.register_forward_pre_hook(takes_time)
        return engine, clock

    return make


def oracle(fake, engine, requests, kind, seed=1):
    """Let the engine draft what its requests get when they are alone."""
    alone = {name: fake.answer(prompt, params, kind) for name, (prompt, params) in requests.items()}
    engine._speculation = fake.Oracle(engine, lambda s: alone[s.request.request_id][s.index], seed)
    return alone


@pytest.mark.parametrize("kind", ["paged", "latent", "state", "mixed"])
@pytest.mark.parametrize("name", REQUESTS)
def test_tokens_and_logprobs_are_those_without_drafts(fake, kind, name):
    results = []
    for drafted in (False, True):
        engine = fake.make_engine(kind, speculation=7)
        requests = {f"r{i}": (prompt_of(4 + i, i), params_of(i, **REQUESTS[name])) for i in range(4)}
        if drafted:
            oracle(fake, engine, requests, kind)
        for request, (prompt, params) in requests.items():
            engine.add_request(request, prompt, params)
        updates = fake.run(engine)
        results.append(
            {
                answer: (
                    fake.tokens_of(got),
                    [scores for update in got for scores in update.logprobs or ()],
                    (got[-1].finish_reason, got[-1].stop_reason),
                )
                for answer, got in updates.items()
            }
        )
        for got in updates.values():
            for update in got:
                assert update.logprobs is None or len(update.logprobs) == len(update.token_ids)
    assert results[0] == results[1]
    stats = engine.stats()
    assert stats.accepted_draft_tokens > 20
    assert stats.draft_tokens > stats.accepted_draft_tokens
    assert stats.generation_tokens == sum(len(tokens) for tokens, _, _ in results[0].values())


@pytest.mark.parametrize("budget", [2, 5, 48])
def test_drafts_beside_prompts_in_chunks_and_few_blocks(fake, budget):
    engine = fake.make_engine("paged", num_blocks=18, max_num_seqs=6, max_num_batched_tokens=budget)
    requests = {f"r{i}": (prompt_of(3 + 5 * i, i), params_of(i, max_tokens=25)) for i in range(6)}
    alone = oracle(fake, engine, requests, "paged")
    for name, request in requests.items():
        engine.add_request(name, *request)
    updates = fake.run(engine)
    assert {name: [fake.tokens_of(updates[name, 0])] for name in requests} == alone
    stats = engine.stats()
    assert stats.preemptions > 0
    assert stats.accepted_draft_tokens > 0
    assert stats.blocks_used == 0


def test_tokens_behind_an_end_inside_drafts_are_dropped(fake):
    prompt = prompt_of(6)
    free = fake.greedy_reference(prompt, 40)
    for place in range(2, 12):
        if free.index(free[place]) != place:
            continue
        params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop_token_ids=[free[place]])
        engine = fake.make_engine()
        engine._speculation = fake.Oracle(engine, lambda _: free, seed=place)
        engine.add_request("r", prompt, params)
        updates = fake.run(engine)["r", 0]
        assert fake.tokens_of(updates) == free[: place + 1]
        assert (updates[-1].finish_reason, updates[-1].stop_reason) == ("stop", free[place])
        assert engine.stats().generation_tokens == place + 1


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 9, None])
def test_length_limits_hold(fake, max_tokens):
    prompt = prompt_of(50)
    engine = fake.make_engine()
    engine._speculation = fake.Oracle(engine, lambda _: fake.greedy_reference(prompt, 40), seed=3)
    engine.add_request("r", prompt, SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True))
    updates = fake.run(engine)["r", 0]
    assert fake.tokens_of(updates) == fake.greedy_reference(prompt, max_tokens or 14)
    assert updates[-1].finish_reason == "length"


def test_what_rejected_drafts_left_in_the_cache_is_never_found(fake):
    """A later request whose prompt is a prefix with the wrong drafts computes it itself."""
    prompt, wrong = prompt_of(7), [7, 7, 7, 7, 7, 7, 7]
    engine = fake.make_engine()

    class Wrong(fake.Oracle):
        def draft(self, scheduled):
            return {
                s: wrong[: self._engine._blocks.make_room(s, 7)]
                for s, count in scheduled.items()
                if count == 1 and s.num_generated_tokens == 1 and s.request.request_id == "first"
            }

    engine._speculation = Wrong(engine, None, 0)
    params = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
    engine.add_request("first", prompt, params)
    answer = fake.tokens_of(fake.run(engine)["first", 0])
    assert answer == fake.greedy_reference(prompt, 9)
    again = [*prompt, answer[0], *wrong, 1]
    engine.add_request("again", again, params)
    updates = fake.run(engine)["again", 0]
    assert updates[0].num_cached_tokens == 8
    assert fake.tokens_of(updates) == fake.greedy_reference(again, 9)


def test_a_row_behind_a_wrong_draft_may_hold_anything_and_one_behind_a_right_one_may_not(fake):
    prompt = prompt_of(6)
    free = fake.greedy_reference(prompt, 12)

    class Drafting(fake.Oracle):
        def draft(self, scheduled):
            drafts = {s: [free[1], fake.NAN_TOKEN, 3] for s in scheduled if s.num_generated_tokens == 1}
            return {s: tokens for s, tokens in drafts.items() if self._engine._blocks.make_room(s, 3) == 3}

    bias = {token: -100.0 for token in range(fake.VOCAB) if token != fake.NAN_TOKEN}
    engine = fake.make_engine()
    engine._speculation = Drafting(engine, None, 0)
    engine.add_request("good", prompt, params_of(temperature=0, max_tokens=12))
    assert fake.tokens_of(fake.run(engine)["good", 0]) == free

    class Fatal(fake.Oracle):
        def draft(self, scheduled):
            drafts = {s: [fake.NAN_TOKEN] for s in scheduled if s.num_generated_tokens == 1}
            return {s: tokens for s, tokens in drafts.items() if self._engine._blocks.make_room(s, 1)}

    # The first token comes free of the bias' ban only if it is the only one: then every token is NAN_TOKEN.
    engine._speculation = Fatal(engine, None, 0)
    engine.add_request("bad", prompt, params_of(temperature=0, max_tokens=12, logit_bias=bias))
    updates = fake.run(engine)["bad", 0]
    assert fake.tokens_of(updates) == [fake.NAN_TOKEN]
    assert isinstance(updates[-1].error, NonFiniteLogits)
    assert "position 7:" in str(updates[-1].error)


# How many are drafted ---------------------------------------------------------------------------------------------


def seconds_of(fake, engine, clock, requests):
    for name, (prompt, params) in requests.items():
        engine.add_request(name, prompt, params)
    updates = fake.run(engine)
    return clock.now, {answer: fake.tokens_of(got) for answer, got in updates.items()}


def both(fake, timed, kind, cost, requests, **overrides):
    """Seconds without and with speculation, and the figures of the engine that had it."""
    before, plain = seconds_of(fake, *timed(kind, cost, **overrides), requests)
    engine, clock = timed(kind, cost, speculation=15, **overrides)
    after, drafted = seconds_of(fake, engine, clock, requests)
    assert plain == drafted
    return before, after, engine.stats()


def test_text_that_repeats_itself_comes_faster(fake, timed):
    requests = {"r": (prompt_of(9), params_of(temperature=0, max_tokens=400))}
    before, after, stats = both(fake, timed, "repeating", lambda rows: 1 + 0.1 * (rows - 1), requests)
    assert before / after > 3
    assert stats.accepted_draft_tokens > 300
    assert stats.accepted_draft_tokens / stats.draft_tokens > 0.8


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_text_that_does_not_costs_next_to_nothing(fake, timed, share):
    """The prompt offers matches all along, and what comes is never what follows them."""
    prompt = [token for token in range(1, 48) for _ in range(4)] * 2
    requests = {"r": (prompt, params_of(temperature=0, max_tokens=600))}
    cost = lambda rows: 1.0 if rows > 64 else 1 + share * (rows - 1)  # noqa: E731
    before, after, stats = both(fake, timed, "paged", cost, requests)
    assert after / before < 1.02
    assert stats.draft_tokens < 60


def test_rows_as_expensive_as_steps_are_only_tried(fake, timed):
    """A perfect match gains nothing where a row more costs a step more; that is found out and remembered."""
    requests = {"r": (prompt_of(9), params_of(temperature=0, max_tokens=800))}
    before, after, stats = both(fake, timed, "repeating", lambda rows: 1.0 * rows, requests)
    assert after / before < 1.03
    assert stats.draft_tokens < 200


def test_a_large_batch_drafts_less_than_a_single_sequence(fake, timed):
    """Rows are free up to eight, as on a machine that waits for memory, and cost in proportion beyond."""

    def cost(rows):
        return max(1.0, rows / 8)

    drafted = []
    for count in (1, 8):
        requests = {
            f"r{i}": (prompt_of(9, i), params_of(temperature=0, max_tokens=200)) for i in range(count)
        }
        before, after, stats = both(fake, timed, "repeating", cost, requests)
        drafted.append(stats.draft_tokens / count)
        assert after / before < (0.3 if count == 1 else 1.03)
    assert drafted[1] < drafted[0] / 4


def test_it_comes_back_when_steps_become_cheap(fake, timed):
    price = [1.0]
    engine, _ = timed("repeating", lambda rows: 1 + price[0] * (rows - 1), speculation=15)
    for turn in range(3):
        engine.add_request(str(turn), prompt_of(9), params_of(temperature=0, max_tokens=900))
        fake.run(engine)
        drafted = engine.stats().draft_tokens
        price[0] = 0.02
    assert drafted > 800


def test_drafts_take_what_blocks_are_left_and_preempt_nobody(fake, timed):
    """Two sequences of four blocks each in eight blocks: no draft ever fits a new one."""
    sizes = {"num_blocks": 8, "max_model_len": 32, "max_num_seqs": 2, "enable_prefix_caching": False}
    engine, _ = timed("repeating", lambda rows: 1 + 0.01 * rows, speculation=15, **sizes)
    for i in range(2):
        engine.add_request(str(i), [1 + i] * 8, params_of(temperature=0, max_tokens=8))
    updates = fake.run(engine)
    assert engine.stats().preemptions == 0
    assert all(len(fake.tokens_of(updates[str(i), 0])) == 8 for i in range(2))


def test_drafts_keep_to_the_budget_of_a_step(fake, timed):
    rows = []

    def cost(count):
        rows.append(count)
        return 1.0

    engine, _ = timed("repeating", cost, speculation=15, max_num_batched_tokens=6)
    for i in range(2):
        engine.add_request(str(i), prompt_of(9), params_of(temperature=0, max_tokens=60))
    fake.run(engine)
    assert engine.stats().accepted_draft_tokens > 0
    assert max(rows) <= 6


def test_a_wrong_setting_is_refused(fake):
    with pytest.raises(ConfigError, match="speculation must be at least 0, got -1"):
        fake.make_engine(speculation=-1)


def test_the_usual_time_of_a_step_is_the_median_of_recent_ones():
    costs = StepCosts()
    assert not costs.comparable
    for seconds in (50.0, 1.0, 1.1, 30.0, 0.9, 1.0):
        costs.record(0, seconds)
    assert costs.comparable
    assert dict(costs.ratios(7)) == pytest.approx({1: 1.03, 3: 1.09, 7: 1.21})
    for seconds in (70.0, 2.0):
        costs.record(3, seconds)
    assert dict(costs.ratios(15)) == pytest.approx({1: 1.03, 3: 2.0, 7: 2.12, 15: 2.36})
    for _ in range(3):
        costs.record(7, 4.0)
    costs.record(5, math.inf)
    # From 3 to 7 it took 0.5 per draft.
    assert dict(costs.ratios(15)) == pytest.approx({1: 1.03, 3: 2.0, 7: 4.0, 15: 8.0})


def test_old_measurements_are_not_trusted():
    costs = StepCosts()
    for count in (0, 0, 1, 1, 7, 7):
        costs.record(count, 1.0 + count)
    for _ in range(63):
        costs.record(7, 9.0)
    assert not costs.comparable
    for _ in range(600):
        costs.record(0, 2.0)
    assert dict(costs.ratios(7)) == pytest.approx({1: 1.03, 3: 1.09, 7: 1.21})
    costs.record(7, 3.0)
    assert dict(costs.ratios(7))[7] == 1.5
