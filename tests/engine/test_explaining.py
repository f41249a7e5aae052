"""What is said of prompts of which it is known what the cache holds."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from inference_pio.engine.explaining import _MOST_REQUESTS
from inference_pio.loader.prefix_store import PrefixStore
from inference_pio.outputs import CacheExplanation
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.plugin.media import MediaItem, PromptMedia
from inference_pio.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
PROMPT = random.Random(5).choices(range(1, 48), k=22)


@pytest.fixture
def ask(fake):
    """What is told of a prompt, once it has its answer."""

    def asked(engine, prompt, name="r", **more) -> CacheExplanation:
        engine.add_request(name, prompt, GREEDY, **more)
        (update, *others) = fake.run(engine)[name, 0]
        assert all(other.cache is update.cache for other in others)
        assert update.cache.num_prompt_tokens == len(prompt)
        assert update.cache.num_cached_tokens == update.num_cached_tokens
        return update.cache

    return asked


def changed(prompt: list[int], place: int) -> list[int]:
    return [*prompt[:place], prompt[place] % 40 + 1, *prompt[place + 1 :]]


def test_nothing_is_told_unless_asked(fake):
    engine = fake.make_engine()
    engine.add_request("r", PROMPT, GREEDY)
    assert {update.cache for update in fake.run(engine)["r", 0]} == {None}


@pytest.mark.parametrize("place", [1, 3, 4, 5, 9, 15, 16, 19])
def test_it_says_where_a_prompt_diverges_to_the_token(fake, ask, place):
    engine = fake.make_engine(explain_cache=True)
    assert ask(engine, PROMPT).reason == "new"
    other = changed(PROMPT, place)
    told = ask(engine, other)
    assert told == CacheExplanation(
        "diverged", 22, place // 4 * 4, 4, place, token_id=other[place], known_token_id=PROMPT[place]
    )


def test_of_several_the_nearest_counts(fake, ask):
    engine = fake.make_engine(explain_cache=True)
    for place in (2, 14, 7):
        ask(engine, changed(PROMPT, place))
    told = ask(engine, PROMPT)
    assert (told.reason, told.num_cached_tokens, told.num_common_tokens) == ("diverged", 12, 14)
    assert told.known_token_id == changed(PROMPT, 14)[14]


def test_an_answer_is_known_as_well_as_a_prompt(fake, ask):
    engine = fake.make_engine(explain_cache=True)
    ask(engine, PROMPT)
    answer = fake.greedy_reference(PROMPT, 3)
    told = ask(engine, [*PROMPT, *answer, 7, 7, 7, 7, 7])
    assert (told.reason, told.num_cached_tokens, told.num_common_tokens) == ("diverged", 24, 25)
    assert (told.token_id, told.known_token_id) == (7, None)


def test_all_that_could_be_given_needs_no_reason(fake, ask):
    engine = fake.make_engine(explain_cache=True)
    ask(engine, PROMPT)
    assert ask(engine, PROMPT) == CacheExplanation("whole", 22, 20, 4, 20)
    assert ask(engine, [1, 2, 3]).reason == "whole"  # less than a block


def test_a_prompt_that_shares_its_first_tokens_with_none_is_new(fake, ask):
    engine = fake.make_engine(explain_cache=True)
    ask(engine, PROMPT)
    assert ask(engine, changed(PROMPT, 0)).reason == "new"


def test_it_says_who_took_the_room_and_when(fake, ask):
    engine = fake.make_engine(explain_cache=True, prefix_cache_max_blocks=6)
    ask(engine, PROMPT, "first")
    ask(engine, random.Random(6).choices(range(1, 48), k=22), "second")
    told = ask(engine, PROMPT, "third")
    assert (told.reason, told.other_request, told.num_common_tokens) == ("forgotten", "second", 22)
    assert told.num_cached_tokens < 20
    assert told.seconds_ago is not None
    assert 0 <= told.seconds_ago < 60


def test_what_another_request_has_yet_to_compute_is_not_there(fake):
    engine = fake.make_engine(explain_cache=True, max_num_batched_tokens=30)
    engine.add_request("one", PROMPT, GREEDY)
    engine.add_request("two", PROMPT, GREEDY)
    told = fake.run(engine)["two", 0][0].cache
    assert (told.reason, told.other_request, told.num_common_tokens) == ("not computed", "one", 22)


def test_answers_to_one_prompt_are_told_of_once(fake):
    engine = fake.make_engine(explain_cache=True)
    engine.add_request("r", PROMPT, replace(GREEDY, n=2))
    updates = fake.run(engine)
    assert updates["r", 0][0].cache.reason == "new"
    assert updates["r", 1][0].cache is None


def test_without_a_copy_of_the_state_that_is_the_reason(fake, ask):
    policy = PrefixPolicy(seed=("fake",), reuse="snapshots", snapshots_at=("prompt",))
    engine = fake.make_engine("mixed", policy, explain_cache=True, num_snapshots=2)
    ask(engine, PROMPT)
    told = ask(engine, changed(PROMPT, 17))
    assert (told.reason, told.num_cached_tokens, told.num_common_tokens) == ("no snapshot", 0, 17)


@pytest.mark.parametrize(("kind", "options"), [("state", {}), ("paged", {"enable_prefix_caching": False})])
def test_off_is_off(fake, ask, kind, options):
    engine = fake.make_engine(kind, explain_cache=True, **options)
    ask(engine, PROMPT)
    assert ask(engine, PROMPT) == CacheExplanation("off", 22, 0, 4, 0)


def test_a_forgotten_cache_knows_nothing(fake, ask):
    engine = fake.make_engine(explain_cache=True)
    ask(engine, PROMPT)
    engine.reset_prefix_cache()
    assert ask(engine, PROMPT).reason == "new"


def test_an_earlier_run_is_compared_with_too(fake, ask, tmp_path):
    def engine(**options):
        return fake.make_engine(tier=PrefixStore(tmp_path, b"k" * 32, 10**9), **options)

    first = engine()
    first.add_request("r", PROMPT, GREEDY)
    fake.run(first)
    first.close()
    second = engine(explain_cache=True)
    other = changed(PROMPT, 9)
    assert ask(second, other) == CacheExplanation(
        "diverged", 22, 8, 4, 9, token_id=other[9], known_token_id=PROMPT[9]
    )
    told = ask(second, [*PROMPT, *fake.greedy_reference(PROMPT, 3), 7, 7, 7, 7, 7])
    assert (told.num_cached_tokens, told.num_common_tokens, told.known_token_id) == (24, 24, None)
    second.close()


def test_another_image_is_where_prompts_part(fake, ask):
    def media(digest: bytes) -> PromptMedia:
        item = MediaItem(pixels=torch.zeros(1), grid=(1, 1, 1), start=6, length=4, digest=digest)
        return PromptMedia(items=(item,), rope_positions=torch.arange(22)[None], rope_delta=0)

    engine = fake.make_engine(explain_cache=True)
    ask(engine, PROMPT, media=media(b"one"))
    assert ask(engine, PROMPT, media=media(b"one")).reason == "whole"
    told = ask(engine, PROMPT, media=media(b"other"))
    assert (told.reason, told.num_cached_tokens, told.num_common_tokens) == ("diverged", 4, 6)
    assert told.token_id == told.known_token_id == PROMPT[6]


def test_what_is_kept_for_it_is_bounded(fake, ask):
    engine = fake.make_engine(explain_cache=True, max_model_len=8, num_blocks=8)
    for number in range(_MOST_REQUESTS + 10):
        ask(engine, [1 + number // 40, 1 + number % 40, 3, 4, 5])
    history = engine._blocks._history
    assert len(history._known) == _MOST_REQUESTS
