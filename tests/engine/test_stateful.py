"""Any interleaving of adding, stepping, aborting and preempting gives each request the tokens it gets alone."""

from __future__ import annotations

import functools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inference_pio.engine.step_costs import DRAFT_COUNTS, StepCosts
from inference_pio.sampling_params import SamplingParams

# Few different tokens and lengths, so that prefixes are often equal and end in every place of a block.
PROMPTS = st.tuples(st.integers(1, 3), st.integers(1, 26), st.integers(0, 3)).map(
    lambda t: [*[t[0]] * (t[1] - 1), t[0] + t[2]]
)
PARAMS = st.fixed_dictionaries(
    {
        "n": st.sampled_from([1, 1, 1, 2, 3]),
        "temperature": st.sampled_from([0.0, 1.0, 1.8]),
        "top_k": st.sampled_from([0, 4]),
        "frequency_penalty": st.sampled_from([0.0, 1.0]),
        "max_tokens": st.integers(1, 14),
        "min_tokens": st.sampled_from([0, 1]),
        "seed": st.integers(0, 3),
    }
)


ALONE: dict = {}


class Machine(RuleBasedStateMachine):
    def __init__(self, fake, kind):
        super().__init__()
        self.fake, self.kind = fake, kind
        self.requests, self.tokens, self.reasons = {}, {}, {}

    @initialize(
        num_blocks=st.integers(10, 24),
        budget=st.integers(1, 24),
        num_seqs=st.integers(1, 6),
        idle=st.none() | st.integers(0, 6),
        caching=st.booleans(),
        speculation=st.sampled_from(["off", "on", "oracle"]),
        snapshots=st.integers(0, 5),
    )
    def start(self, num_blocks, budget, num_seqs, idle, caching, speculation, snapshots):
        self.engine = self.fake.make_engine(
            self.kind,
            max_model_len=40,
            num_blocks=num_blocks,
            max_num_batched_tokens=budget,
            max_num_seqs=num_seqs,
            prefix_cache_max_blocks=idle,
            enable_prefix_caching=caching,
            num_snapshots=snapshots,
            speculation=0 if speculation == "off" else 5,
        )
        if speculation == "oracle":
            self.engine._speculation = self.fake.Oracle(self.engine, self.answer_of, seed=budget)

    def answer_of(self, sequence):
        prompt, params = self.requests[sequence.request.request_id]
        return self.alone(prompt, params)[sequence.index]

    @rule(prompt=PROMPTS, params=PARAMS)
    def add(self, prompt, params):
        name = f"r{len(self.requests)}"
        self.requests[name] = (tuple(prompt), tuple(params.items()))
        self.engine.add_request(name, prompt, SamplingParams(**params))

    @rule(steps=st.integers(1, 12))
    def step(self, steps):
        for _ in range(steps):
            self.one_step()

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data):
        self.engine.abort(data.draw(st.sampled_from(sorted(self.requests))))

    @rule()
    def reset(self):
        self.engine.reset_prefix_cache()

    @invariant()
    def sound(self):
        if hasattr(self, "engine"):
            self.engine.check_integrity()

    def one_step(self):
        before = self.engine.stats().steps
        busy = self.engine.has_work
        updates = self.engine.step()
        assert not busy or updates or self.engine.stats().steps == before + 1, "no progress"
        for update in updates:
            answer = update.request_id, update.index
            assert answer not in self.reasons, "an update after the end"
            assert update.error is None
            self.tokens.setdefault(answer, []).extend(update.token_ids)
            if update.finish_reason is not None:
                self.reasons[answer] = update.finish_reason
        self.engine.check_integrity()

    def alone(self, prompt, params):
        if (self.kind, prompt, params) not in ALONE:
            ALONE[self.kind, prompt, params] = self.fake.answer(
                list(prompt),
                SamplingParams(**dict(params)),
                self.kind,
                enable_prefix_caching=False,
                max_model_len=40,
            )
        return ALONE[self.kind, prompt, params]

    def teardown(self):
        if not hasattr(self, "engine"):
            return
        while self.engine.has_work:
            self.one_step()
        stats = self.engine.stats()
        assert (stats.blocks_used, stats.num_running, stats.num_waiting) == (0, 0, 0)
        for name, (prompt, params) in self.requests.items():
            for index, expected in enumerate(self.alone(prompt, params)):
                got = self.tokens[name, index]
                if self.reasons[name, index] == "abort":
                    expected = expected[: len(got)]
                assert got == expected, (name, index)


@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        ("paged", 15),
        ("latent", 5),
        ("drafting", 15),
        ("state", 8),
        ("mixed", 15),
        ("qwen3_next", 3),
        ("evicting", 8),
        pytest.param("paged", 300, marks=pytest.mark.slow),
        pytest.param("mixed", 300, marks=pytest.mark.slow),
        pytest.param("drafting", 200, marks=pytest.mark.slow),
        pytest.param("qwen3_next", 40, marks=pytest.mark.slow),
        pytest.param("evicting", 60, marks=pytest.mark.slow),
    ],
)
def test_any_interleaving_gives_each_request_what_it_gets_alone(fake, kind, examples, monkeypatch):
    if kind == "drafting":  # as much as it can, whatever its passes cost here
        monkeypatch.setattr(StepCosts, "comparable", True)
        monkeypatch.setattr(
            StepCosts, "ratios", lambda _, most: [(count, 1.0) for count in DRAFT_COUNTS if count <= most]
        )
    run_state_machine_as_test(
        functools.partial(Machine, fake, kind),
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
