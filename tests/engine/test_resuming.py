"""A request that another engine began: the answers go on exactly as they would have gone there."""

from __future__ import annotations

import random

import pytest

from inference_pio.sampling_params import SamplingParams

PROMPT = random.Random(3).choices(range(1, 48), k=11)
PARAMS = SamplingParams(
    n=2,
    temperature=1.2,
    top_p=0.9,
    repetition_penalty=1.1,
    frequency_penalty=0.3,
    seed=7,
    max_tokens=14,
    min_tokens=3,
    ignore_eos=True,
)


def answered(fake, kind, done):
    engine = fake.make_engine(kind)
    engine.add_request("r", PROMPT, PARAMS, done=done)
    updates = fake.run(engine)
    assert engine.stats().blocks_used == 0
    return {index: (fake.tokens_of(told), told[-1].finish_reason) for (_, index), told in updates.items()}


@pytest.mark.parametrize("kind", ["paged", "latent", "state"])
@pytest.mark.parametrize("cut", [(1, 1), (0, 5), (13, 2), (7, 12)])
def test_an_answer_goes_on_behind_what_there_is(fake, kind, cut):
    whole = fake.answer(PROMPT, PARAMS, kind)
    done = [answer[:length] for answer, length in zip(whole, cut, strict=True)]
    rest = answered(fake, kind, done)
    for index in range(2):
        assert (done[index] + rest[index][0], rest[index][1]) == (whole[index], "length")


def test_an_answer_that_is_whole_is_left_alone(fake):
    whole = fake.answer(PROMPT, PARAMS, "paged")
    rest = answered(fake, "paged", [None, whole[1][:4]])
    assert rest == {1: (whole[1][4:], "length")}


def test_tokens_that_are_there_already_count(fake):
    """Towards `max_tokens`, and as history of penalties; nothing is told of them again."""
    whole = fake.answer(PROMPT, PARAMS, "paged")
    rest = answered(fake, "paged", [answer[:13] for answer in whole])
    assert [len(tokens) for tokens, _ in rest.values()] == [1, 1]
