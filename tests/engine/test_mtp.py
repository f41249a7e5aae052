"""A model's own layer drafts: tokens stay what they are, and its cache holds what it should."""

from __future__ import annotations

import random

import pytest
import torch

from inference_pio.engine import core
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.engine.mtp import DepthAcceptance
from inference_pio.engine.step_costs import DRAFT_COUNTS, StepCosts
from inference_pio.sampling_params import SamplingParams
from support.fake_drafting import DraftingFake

GREEDY = {"temperature": 0.0}


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
    model = DraftingFake(fake.logits_of, fake.VOCAB, right)
    return EngineCore(
        model,
        model.specs,
        config,
        vocab_size=fake.VOCAB,
        eos_token_ids=[fake.EOS],
        prefix_policy=model.policy,
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
