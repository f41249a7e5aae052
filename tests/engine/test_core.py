from __future__ import annotations

import random

import pytest
import torch

from inference_pio.engine.config import EngineConfig
from inference_pio.errors import (
    ConfigError,
    ContextLengthError,
    GenerationError,
    NonFiniteLogits,
    ResourceError,
    SamplingError,
    UsageError,
)
from inference_pio.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
KINDS = ("paged", "latent", "state")


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(1, 48), k=length)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [1, 3, 64])
@pytest.mark.parametrize("length", [1, 4, 5, 31])
def test_chunked_prefill_equals_the_definition(fake, kind, budget, length):
    prompt = prompt_of(length)
    assert fake.answer(prompt, GREEDY, kind, max_num_batched_tokens=budget) == [
        fake.greedy_reference(prompt, 12)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_64_concurrent_mixed_requests_are_exact(fake, kind):
    engine = fake.make_engine(kind, num_blocks=100, max_num_seqs=32, max_num_batched_tokens=48)
    requests = {}
    for i in range(64):
        rng = random.Random(i)
        prompt = prompt_of(rng.randint(1, 40), seed=i % 9)
        greedy = i % 2 == 0
        requests[f"r{i}"] = (
            prompt,
            SamplingParams(
                temperature=0 if greedy else 1.3,
                top_k=rng.choice([0, 5]),
                top_p=rng.choice([1.0, 0.8]),
                max_tokens=rng.randint(1, 20),
                ignore_eos=greedy,
                seed=i,
                repetition_penalty=1.0 if greedy else 1.2,
            ),
        )
        engine.add_request(f"r{i}", *requests[f"r{i}"])
    updates = fake.run(engine)
    for name, (prompt, params) in requests.items():
        expected = fake.answer(prompt, params, kind)[0]
        if params.greedy:
            assert expected == fake.greedy_reference(prompt, params.max_tokens)
        assert fake.tokens_of(updates[name, 0]) == expected
        assert [u.finish_reason for u in updates[name, 0]][:-1] == [None] * (len(updates[name, 0]) - 1)
        assert updates[name, 0][-1].finish_reason in ("stop", "length")
    assert engine.stats().blocks_used == 0


@pytest.mark.parametrize("kind", KINDS)
def test_preempted_sequences_are_recomputed_exactly(fake, kind):
    engine = fake.make_engine(kind, num_blocks=16, max_num_seqs=6)
    prompts = [prompt_of(9, seed) for seed in range(6)]
    params = SamplingParams(temperature=1.0, seed=5, max_tokens=25, ignore_eos=True)
    for i, prompt in enumerate(prompts):
        engine.add_request(str(i), prompt, params)
    updates = fake.run(engine)
    assert engine.stats().preemptions > 0
    for i, prompt in enumerate(prompts):
        assert fake.tokens_of(updates[str(i), 0]) == fake.answer(prompt, params, kind)[0]


def test_a_sequence_may_be_preempted_in_the_step_it_was_scheduled_for(fake):
    # The second answer of "a" is older than "b", but computes its prompt beside b's decoding and takes b's blocks.
    sizes = {"num_blocks": 7, "max_model_len": 24, "max_num_batched_tokens": 2, "prefix_cache_max_blocks": 0}
    engine = fake.make_engine(**sizes)
    engine.add_request("a", prompt_of(19), SamplingParams(n=2, temperature=0, max_tokens=1))
    engine.add_request("b", [3], SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
    updates = fake.run(engine)
    assert engine.stats().preemptions == 1
    assert fake.tokens_of(updates["b", 0]) == fake.greedy_reference([3], 20)
    assert [fake.tokens_of(updates["a", i]) for i in (0, 1)] == [fake.greedy_reference(prompt_of(19), 1)] * 2


def test_a_prefix_hit_saves_whole_blocks_and_changes_nothing(fake):
    engine = fake.make_engine()
    prompt = prompt_of(18)
    engine.add_request("first", prompt, GREEDY)
    first = fake.run(engine)["first", 0]
    engine.add_request("again", prompt, GREEDY)
    again = fake.run(engine)["again", 0]
    assert fake.tokens_of(first) == fake.tokens_of(again) == fake.greedy_reference(prompt, 12)
    assert (first[0].num_cached_tokens, again[0].num_cached_tokens) == (0, 16)
    stats = engine.stats()
    assert (stats.prefix_query_tokens, stats.prefix_hit_tokens, stats.prompt_tokens) == (36, 16, 36)
    assert stats.generation_tokens == 24


def test_generated_blocks_are_found_by_the_next_turn(fake):
    engine = fake.make_engine()
    prompt = prompt_of(10)
    engine.add_request("turn 1", prompt, GREEDY)
    conversation = prompt + fake.tokens_of(fake.run(engine)["turn 1", 0]) + prompt_of(5, seed=1)
    engine.add_request("turn 2", conversation, GREEDY)
    updates = fake.run(engine)["turn 2", 0]
    assert updates[0].num_cached_tokens == 20  # 10 + 12 tokens, the last of which was never computed
    assert fake.tokens_of(updates) == fake.greedy_reference(conversation, 12)


def test_a_hit_never_covers_the_whole_prompt(fake):
    engine = fake.make_engine()
    for name in ("a", "b"):
        engine.add_request(name, prompt_of(16), GREEDY)
        updates = fake.run(engine)[name, 0]
    assert updates[0].num_cached_tokens == 12
    assert fake.tokens_of(updates) == fake.greedy_reference(prompt_of(16), 12)


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [("state", {}), ("paged", {"enable_prefix_caching": False})],
    ids=["policy", "switch"],
)
def test_nothing_is_reused_where_it_must_not_be(fake, kind, overrides):
    engine = fake.make_engine(kind, **overrides)
    for name in ("a", "b"):
        engine.add_request(name, prompt_of(16), GREEDY)
        updates = fake.run(engine)[name, 0]
    assert updates[0].num_cached_tokens == 0
    assert engine.stats().prefix_query_tokens == 0
    assert engine.reset_prefix_cache() == 0


def test_the_prefix_cache_keeps_no_more_than_its_bound_and_forgets_the_oldest_tail_first(fake):
    engine = fake.make_engine(prefix_cache_max_blocks=3)
    one = SamplingParams(temperature=0, max_tokens=1)
    engine.add_request("a", prompt_of(17), one)  # four full blocks
    fake.run(engine)
    engine.add_request("b", prompt_of(17), one)
    assert fake.run(engine)["b", 0][0].num_cached_tokens == 12
    assert engine.reset_prefix_cache() == 3
    engine.add_request("c", prompt_of(17), one)
    assert fake.run(engine)["c", 0][0].num_cached_tokens == 0


@pytest.mark.parametrize("kind", KINDS)
def test_siblings_share_the_prompt_and_get_their_own_random_numbers(fake, kind):
    engine = fake.make_engine(kind)
    params = SamplingParams(n=4, seed=3, temperature=1.5, max_tokens=10, ignore_eos=True)
    prompt = prompt_of(21)
    engine.add_request("r", prompt, params)
    peak, updates = 0, {}
    while engine.has_work:
        for update in engine.step():
            updates.setdefault(update.index, []).append(update)
        engine.check_integrity()
        peak = max(peak, engine.stats().blocks_used)
    answers = [fake.tokens_of(updates[i]) for i in range(4)]
    assert len({tuple(a) for a in answers}) == 4
    assert answers == fake.answer(prompt, params, "paged", enable_prefix_caching=False)
    cached = [updates[i][0].num_cached_tokens for i in range(4)]
    assert cached == ([0] * 4 if kind == "state" else [0, 20, 20, 20])
    # 30 tokens are computed: 8 blocks each, 5 of them shared. The first answer ends a step before the others.
    assert peak == 5 + 3 * 3 if kind != "state" else peak > 3 * 8


def test_a_prompt_aborted_half_way_leaves_only_what_was_computed(fake):
    engine = fake.make_engine(max_num_batched_tokens=6)
    engine.add_request("aborted", prompt_of(16), GREEDY)
    engine.step()
    engine.abort("aborted")
    engine.add_request("r", prompt_of(16), GREEDY)
    updates = fake.run(engine)["r", 0]
    assert updates[0].num_cached_tokens == 4
    assert fake.tokens_of(updates) == fake.greedy_reference(prompt_of(16), 12)


def test_equal_seeds_repeat_and_missing_seeds_do_not(fake):
    prompt, params = prompt_of(5), SamplingParams(temperature=2, max_tokens=30, ignore_eos=True)
    seeded = SamplingParams(temperature=2, max_tokens=30, ignore_eos=True, seed=-7)
    assert fake.answer(prompt, seeded) == fake.answer(prompt, seeded)
    assert fake.answer(prompt, params) != fake.answer(prompt, params)


def test_the_context_ends_an_answer(fake):
    assert (
        len(fake.answer(prompt_of(60), SamplingParams(temperature=0, max_tokens=None, ignore_eos=True))[0])
        == 4
    )
    assert (
        len(fake.answer(prompt_of(60), SamplingParams(temperature=0, max_tokens=99, ignore_eos=True))[0]) == 4
    )
    assert len(fake.answer(prompt_of(63), GREEDY)[0]) == 1


def stop_run(fake, **kwargs):
    engine = fake.make_engine()
    engine.add_request("r", prompt_of(6), SamplingParams(temperature=0, max_tokens=40, **kwargs))
    return fake.run(engine)["r", 0]


def test_stop_tokens_end_text_and_minimum_length(fake):
    free = fake.tokens_of(stop_run(fake, ignore_eos=True))
    stop = free[5]
    assert fake.EOS not in free[: free.index(stop) + 1]
    updates = stop_run(fake, stop_token_ids=[stop], ignore_eos=True)
    assert fake.tokens_of(updates) == free[: free.index(stop) + 1]
    assert (updates[-1].finish_reason, updates[-1].stop_reason) == ("stop", stop)
    later = stop_run(fake, stop_token_ids=[stop], min_tokens=15)
    tokens = fake.tokens_of(later)
    assert tokens[: free.index(stop)] == free[: free.index(stop)]
    assert len(tokens) > 15
    assert not {stop, fake.EOS} & set(tokens[:15])


def test_the_models_own_end_has_no_stop_reason(fake):
    # A bias of 100 makes end-of-text certain once it is allowed.
    updates = stop_run(fake, logit_bias={fake.EOS: 100.0}, min_tokens=3)
    assert len(fake.tokens_of(updates)) == 4
    assert fake.tokens_of(updates)[-1] == fake.EOS
    assert (updates[-1].finish_reason, updates[-1].stop_reason) == ("stop", None)


def test_logprobs_are_the_models_own(fake):
    engine = fake.make_engine()
    prompt = prompt_of(7)
    engine.add_request(
        "r", prompt, SamplingParams(temperature=1.7, top_k=9, seed=1, max_tokens=8, logprobs=3)
    )
    updates = fake.run(engine)["r", 0]
    tokens = fake.tokens_of(updates)
    history = list(prompt)
    for update, token_id in zip(updates, tokens, strict=True):
        state = 0
        for known in history:
            state = (state * 1_000_003 + known + 1) % (2**61 - 1)
        expected = torch.log_softmax(fake.logits_of(state), -1)
        order = expected.argsort(descending=True).tolist()
        (entry,) = update.logprobs
        assert set(entry) == {*order[:3], token_id}
        for known, logprob in entry.items():
            assert logprob.logprob == pytest.approx(float(expected[known]), abs=1e-5)
            assert logprob.rank == order.index(known) + 1
        history.append(token_id)


def test_nan_fails_its_request_by_name_and_no_other(fake):
    engine = fake.make_engine()
    engine.add_request("good", prompt_of(6), GREEDY)
    engine.add_request("bad", [3, fake.NAN_TOKEN], SamplingParams(n=2, temperature=0))
    updates = fake.run(engine)
    assert fake.tokens_of(updates["good", 0]) == fake.greedy_reference(prompt_of(6), 12)
    for index in (0, 1):
        (update,) = updates["bad", index]
        assert update.finish_reason == "error"
        assert isinstance(update.error, NonFiniteLogits)
        assert str(update.error) == "request bad, answer 0, position 2: the model's logits hold NaN or +inf"
    assert engine.stats().blocks_used == 0


def test_a_failing_forward_pass_fails_its_step_and_leaves_the_engine_alive(fake):
    engine = fake.make_engine()
    engine.add_request("bad", [3, fake.CRASH_TOKEN], GREEDY)
    (update,) = fake.run(engine)["bad", 0]
    assert (update.finish_reason, str(update.error)) == (
        "error",
        "request bad: the model failed: RuntimeError: kernel failed",
    )
    assert isinstance(update.error, GenerationError)
    assert engine.stats().blocks_used == 0
    engine.add_request("bad", prompt_of(6), GREEDY)
    assert fake.tokens_of(fake.run(engine)["bad", 0]) == fake.greedy_reference(prompt_of(6), 12)


def test_logits_of_a_wrong_shape_fail_by_name(fake):
    engine = fake.make_engine()
    engine.add_request("r", [1], GREEDY)
    engine._runner._vocab_size = 51
    (update,) = fake.run(engine)["r", 0]
    assert "logits of shape (1, 50), expected (1, 51)" in str(update.error)


def test_a_bias_that_leaves_no_token_fails_by_name(fake):
    engine = fake.make_engine()
    bias = dict.fromkeys(range(fake.VOCAB), -100.0)
    engine.add_request("r", [1, 2], SamplingParams(logit_bias=bias))
    engine.add_request(
        "one", [1, 2], SamplingParams(logit_bias={k: v for k, v in bias.items() if k != 7}, max_tokens=2)
    )
    updates = fake.run(engine)
    assert (
        str(updates["r", 0][0].error)
        == "request r, answer 0, position 2: logit_bias and min_tokens leave no token"
    )
    assert fake.tokens_of(updates["one", 0]) == [7, 7]


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_abort_frees_everything_at_once(fake, steps):
    engine = fake.make_engine(max_num_batched_tokens=6)
    engine.add_request("r", prompt_of(10), SamplingParams(n=3, max_tokens=20, ignore_eos=True))
    engine.add_request("waiting", prompt_of(10), GREEDY)
    for _ in range(steps):
        engine.step()
    engine.abort("r")
    engine.abort("waiting")
    engine.check_integrity()
    stats = engine.stats()
    assert (stats.blocks_used, stats.num_running, stats.num_waiting) == (0, 0, 0)
    updates = engine.step()
    assert [(u.request_id, u.index, u.finish_reason) for u in updates] == [
        *[("r", i, "abort") for i in range(3)],
        ("waiting", 0, "abort"),
    ]
    assert not engine.has_work
    assert not engine._scheduler._followers
    engine.abort("r")
    assert not engine.has_work


def test_requests_that_cannot_be_served_are_refused(fake):
    engine = fake.make_engine()
    refusals = [
        ([], SamplingError, "the prompt has no tokens"),
        ([1, 50], SamplingError, "token id 50 is not in the vocabulary of 50"),
        ([-1], SamplingError, "token id -1"),
        ([1.0], SamplingError, "whole numbers"),
        ([True], SamplingError, "whole numbers"),
        ([10**30], SamplingError, "token id 1000000000000000000000000000000 is not"),
        ([1] * 64, ContextLengthError, "64 tokens, and at most 63 fit .* max_model_len is 64"),
    ]
    for prompt, error, message in refusals:
        with pytest.raises(error, match=message):
            engine.add_request("r", prompt, GREEDY)
    with pytest.raises(SamplingError, match="stop_token_ids: token id 50"):
        engine.add_request("r", [1], SamplingParams(stop_token_ids=[50]))
    assert not engine.has_work
    engine.add_request("r", [1], GREEDY)
    with pytest.raises(UsageError, match="r is running already"):
        engine.add_request("r", [1], GREEDY)


def test_configuration_is_checked():
    for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size", "num_blocks"):
        with pytest.raises(ConfigError, match=name):
            EngineConfig(**{"max_model_len": 8, "num_blocks": 8, name: 0})
    with pytest.raises(ConfigError, match="prefix_cache_max_blocks"):
        EngineConfig(max_model_len=8, num_blocks=8, prefix_cache_max_blocks=-1)
    with pytest.raises(
        ResourceError, match="2 blocks × 32 tokens = 64 < max_model_len 100; .* max_model_len 64"
    ):
        EngineConfig(max_model_len=100, num_blocks=2)
