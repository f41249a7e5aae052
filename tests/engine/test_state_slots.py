"""Snapshots of recurrent state: who goes on from which, what they cost, and when they are forgotten.

The model that is used keeps every token beside its state and fails where the two differ.
"""

from __future__ import annotations

import random

import pytest

from inference_pio.errors import ConfigError, PluginError
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=9, ignore_eos=True)
ONE = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)


def text(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(1, 48), k=length)


@pytest.fixture
def serve(fake):
    """An engine of blocks of 4 tokens, and what it answers to one prompt: (tokens, cached tokens, computed rows)."""

    class Serving:
        def __init__(self, **overrides):
            self.engine = fake.make_engine("mixed", **{"num_snapshots": 4, **overrides})
            self.rows, self._names = 0, 0
            self.engine._runner._model.register_forward_pre_hook(self._count)

        def _count(self, module, args):  # noqa: ARG002
            self.rows += len(args[0].token_ids)

        def __call__(self, prompt, params=GREEDY):
            self._names += 1
            before = self.rows
            self.engine.add_request(str(self._names), prompt, params)
            updates = fake.run(self.engine)[str(self._names), 0]
            tokens = fake.tokens_of(updates)
            assert tokens == fake.greedy_reference(prompt, len(tokens))
            return tokens, updates[0].num_cached_tokens, self.rows - before

    return Serving


def test_a_second_turn_goes_on_behind_the_first_answer(serve):
    """Of 14 + 9 tokens 22 were computed, and the last border before them is at 20."""
    chat = serve(num_snapshots=1)
    history = text(14)
    answer, cached, rows = chat(history)
    assert (cached, rows) == (0, 14 + 8)
    history = [*history, *answer, *text(6, 1)]
    answer, cached, rows = chat(history)
    assert (cached, rows) == (20, 29 - 20 + 8)
    history = [*history, *answer, *text(3, 2)]
    assert chat(history)[1] == 36


def test_the_same_prompt_again_goes_on_at_its_last_border(serve):
    ask = serve()
    assert [ask(text(13), ONE)[1:] for _ in range(2)] == [(0, 13), (12, 1)]
    # Of a prompt of whole blocks one token at least is computed: there must be logits to sample from.
    assert [ask(text(16, 1), ONE)[1:] for _ in range(2)] == [(0, 16), (12, 4)]
    assert [ask(text(4, 2), ONE)[1:] for _ in range(2)] == [(0, 4), (0, 4)]


def test_a_snapshot_inside_a_prompt_costs_no_step(serve, fake):
    """As long as what lies behind is one block at most, of all prompts of a step: here 2 tokens, and 3."""
    ask = serve()
    ask(text(14), ONE)
    assert ask.engine.stats().steps == 1
    assert ask(text(14), ONE)[1] == 12
    ask = serve()
    prompts = {"first": text(14), "second": text(15, 1)}
    for name, prompt in prompts.items():
        ask.engine.add_request(name, prompt, ONE)
    updates = fake.run(ask.engine)
    for name, prompt in prompts.items():
        assert fake.tokens_of(updates[name, 0]) == fake.greedy_reference(prompt, 1)
        assert ask(prompt, ONE)[1] == 12
    assert ask.engine.stats().steps == 2 + 2, "the second one's end had to wait"


@pytest.mark.parametrize(("length", "steps"), [(60, 1), (72, 1), (73, 2), (79, 2)])
def test_of_a_large_block_no_more_than_32_tokens_lie_behind_a_snapshot(serve, length, steps):
    sizes = {"block_size": 40, "max_model_len": 120, "max_num_batched_tokens": 128}
    ask = serve(**sizes)
    ask(text(length), ONE)
    assert ask.engine.stats().steps == steps
    assert ask(text(length), ONE)[1] == 40


def test_a_third_prompt_begins_where_two_have_parted(serve):
    """The second shows how far the first one's beginning is shared."""
    ask, shared = serve(), text(18)
    found = [ask([*shared, *text(12, seed)], ONE)[1] for seed in (1, 2, 3, 4)]
    assert found == [0, 0, 16, 16]


def test_answers_to_one_prompt_share_its_snapshot(serve, fake):
    ask = serve()
    params = SamplingParams(temperature=1.0, seed=3, n=3, max_tokens=6, ignore_eos=True)
    expected = fake.answer(text(22), params, "mixed")
    ask.engine.add_request("three", text(22), params)
    updates = fake.run(ask.engine)
    assert [fake.tokens_of(updates["three", i]) for i in range(3)] == expected
    assert [updates["three", i][0].num_cached_tokens for i in range(3)] == [0, 20, 20]
    assert ask.rows == 22 + 2 * 2 + 3 * 5


def test_without_room_for_snapshots_nothing_is_reused(serve):
    ask = serve(num_snapshots=0)
    assert [ask(text(13), ONE)[1:] for _ in range(2)] == [(0, 13)] * 2
    assert ask.engine.stats().prefix_query_tokens == 0
    assert not serve(enable_prefix_caching=False).engine._states._snapshots_at


def test_the_snapshot_that_was_not_used_for_longest_goes_first(serve):
    ask = serve(num_snapshots=2)
    first, second, third = text(13, 1), text(13, 2), text(13, 3)
    assert [ask(prompt, ONE)[1] for prompt in (first, second, first, third)] == [0, 0, 12, 0]
    assert ask(first, ONE)[1] == 12
    assert ask(second, ONE)[1] == 0


def test_a_snapshot_goes_with_its_block(serve):
    """Nine blocks: the second prompt needs all of them."""
    ask = serve(num_blocks=9, max_model_len=36)
    ask(text(13), ONE)
    assert len(ask.engine._states._slot_of) == 1
    ask(text(34, 1), ONE)
    assert ask(text(13), ONE)[1] == 0
    small = serve(prefix_cache_max_blocks=2)
    small(text(13), ONE)
    assert not small.engine._states._slot_of, "the block that it ends with is the first to be let go"


def test_forgetting_the_prefix_cache_forgets_snapshots(serve):
    ask = serve()
    ask(text(13), ONE)
    assert ask.engine.reset_prefix_cache() == 3
    assert ask(text(13), ONE)[1] == 0
    assert ask(text(13), ONE)[1] == 12


def test_a_running_answer_has_one_snapshot_that_moves_on(serve):
    ask = serve()
    long = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    answer, _, _ = ask(text(10), long)
    assert len(ask.engine._states._slot_of) == 2, "of its prompt, and of its end"
    whole = [*text(10), *answer]
    assert ask([*text(10), 3], ONE)[1] == 8
    assert ask([*whole, 5], ONE)[1] == 48
    assert ask([*whole[:33], 5], ONE)[1] == 8


def test_answers_take_no_snapshots_from_each_other_and_prompts_take_any(serve, fake):
    """Two slots, three answers: the third goes without until one of the others has ended."""
    ask = serve(num_snapshots=2, max_num_seqs=4)
    histories = [text(2, seed) for seed in range(3)]
    for number, history in enumerate(histories):
        ask.engine.add_request(str(number), history, GREEDY)
    updates = fake.run(ask.engine)
    for number, history in enumerate(histories):
        histories[number] = [*history, *fake.tokens_of(updates[str(number), 0])]
    assert [ask(history, ONE)[1] for history in histories] == [8, 8, 0]
    later, _, _ = ask(text(2, 9))
    assert ask([*text(2, 9), *later], ONE)[1] == 8, "an answer may take what an ended one has left"
    assert ask(text(9, 7), ONE)[1] == 0
    assert ask(text(9, 7), ONE)[1] == 8


def test_a_preempted_sequence_goes_on_from_its_snapshot(serve, fake):
    """Blocks for 1 1/2 sequences: the newer one is put out, and has little to compute again."""
    params = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True)
    rows = {}
    for snapshots in (0, 4):
        ask = serve(num_blocks=16, num_snapshots=snapshots, max_model_len=48)
        for number in range(2):
            ask.engine.add_request(str(number), text(14, number), params)
        updates = fake.run(ask.engine)
        for number in range(2):
            expected = fake.greedy_reference(text(14, number), 30)
            assert fake.tokens_of(updates[str(number), 0]) == expected
        assert ask.engine.stats().preemptions > 0
        rows[snapshots] = ask.rows
    needed = 2 * (14 + 29)
    assert rows[0] > needed + 15
    assert rows[4] < rows[0] - 10


def test_drafts_that_pass_a_border_leave_a_snapshot_there(serve, fake):
    """The answer's tokens 2 to 7 are drafted at once, with two wrong ones behind: positions 11 to 18, border at 16."""
    prompt = text(10)
    free = fake.greedy_reference(prompt, 12)

    class Right(fake.Oracle):
        def draft(self, scheduled):
            (sequence,) = scheduled
            if sequence.num_generated_tokens != 1:
                return {}
            assert self._engine._blocks.make_room(sequence, 8) == 8
            return {sequence: [*free[1:7], (free[7] + 1) % 40 + 1, 2]}

    ask = serve(speculation=8)
    ask.engine._speculation = Right(ask.engine, None, 0)
    answer, _, _ = ask(prompt, SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True))
    assert ask.engine.stats().accepted_draft_tokens == 6
    ask.engine._speculation = None
    assert ask([*prompt, *answer, 1], ONE)[1] == 16


@pytest.mark.parametrize("place", ["branch", "prompt", "answer"])
def test_a_policy_says_where_snapshots_are_taken(fake, place):
    model = fake.MODELS["mixed"]
    policy = PrefixPolicy(seed=("fake",), reuse="snapshots", snapshots_at=(place,))
    engine = fake.make_engine("mixed", num_snapshots=8, policy=policy)
    assert model.policy != policy

    def ask(name, prompt):
        engine.add_request(name, prompt, GREEDY)
        updates = fake.run(engine)[name, 0]
        assert fake.tokens_of(updates) == fake.greedy_reference(prompt, 9)
        return updates[0].num_cached_tokens

    prompt = text(14)
    ask("first", prompt)
    followed = ask("followed", [*prompt, *fake.greedy_reference(prompt, 9), 1])
    parted = [ask(f"again{i}", [*prompt[:11], *text(9, i)]) for i in (1, 2)]
    ended = [ask(f"same{i}", prompt) for i in (1, 2)]
    assert (followed, parted, ended) == {
        "branch": (0, [0, 8], [8, 12]),
        "prompt": (12, [0, 0], [12, 12]),
        "answer": (20, [0, 0], [0, 0]),
    }[place]


def test_what_does_not_go_together_is_refused(fake):
    with pytest.raises(PluginError, match='needs reuse="snapshots"'):
        fake.make_engine("state", policy=PrefixPolicy(seed=("fake",)))
    with pytest.raises(ConfigError, match="num_snapshots must be at least 0, got -1"):
        fake.make_engine("state", num_snapshots=-1)
