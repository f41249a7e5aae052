"""Images in the engine: whatever it gets wrong about them changes the history that the model reads back."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from inference_pio import ops
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.media import prefix_part
from inference_pio.engine.replay import StepReplay
from inference_pio.errors import GenerationError
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.media import MediaRows, PromptMedia
from inference_pio.sampling_params import SamplingParams
from support.seeing import UNSEEN, answer_of, make_engine, picture, prompt_of

GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
RED, BLUE = picture(4, 5, 1), picture(4, 5, 2)
Prompt = tuple[list[int], PromptMedia | None]


def answers(engine: Any, *, steps: int = 1000) -> dict[str, list[int]]:
    tokens: dict[str, list[int]] = {}
    for _ in range(steps):
        if not engine.has_work:
            return tokens
        for update in engine.step():
            assert update.error is None
            tokens.setdefault(update.request_id, []).extend(update.token_ids)
        engine.check_integrity()
    raise AssertionError("the engine does not come to an end")


def ask(engine: Any, prompt: Prompt, name: str = "r", params: SamplingParams = GREEDY) -> list[int]:
    """The answer, which is held against the definition."""
    engine.add_request(name, prompt[0], params, prompt[1])
    tokens = answers(engine)[name]
    assert tokens == answer_of(*prompt, params.max_tokens)
    return tokens


@pytest.mark.parametrize("budget", [1, 3, 7, 32, 128])
@pytest.mark.parametrize("speculation", [0, 4])
def test_a_chunk_may_end_anywhere(budget: int, speculation: int) -> None:
    engine, model = make_engine(max_num_batched_tokens=budget, speculation=speculation)
    ask(engine, prompt_of(1, 2, RED, 3, picture(2, 3, 3), picture(1, 1, 4), 5))
    assert model.encoded == [(1, 4, 5), (1, 2, 3), (1, 1, 1)]
    assert sum(rows for _, rows in model.steps) == 27


def test_text_alone_has_positions_and_no_images() -> None:
    engine, model = make_engine()
    ask(engine, prompt_of(1, 2, 3))
    assert model.encoded == []


def test_images_and_texts_side_by_side() -> None:
    engine, _ = make_engine(max_num_batched_tokens=11, num_blocks=200)
    prompts = {}
    for i in range(12):
        draw = random.Random(i)
        parts = [
            draw.randint(1, 9) if draw.random() < 0.6 else picture(*draw.choices(range(1, 5), k=2), seed=i)
        ]
        parts += [draw.randint(1, 9), picture(3, 3, seed=i % 3), 7]
        prompts[str(i)] = prompt_of(*parts)
        engine.add_request(str(i), prompts[str(i)][0], GREEDY, prompts[str(i)][1])
    found = answers(engine)
    assert found == {name: answer_of(*prompt, 10) for name, prompt in prompts.items()}


def test_two_images_with_equal_token_ids_share_nothing_and_equal_ones_do() -> None:
    engine, model = make_engine()
    red, blue = prompt_of(1, 2, RED, 3), prompt_of(1, 2, BLUE, 3)
    assert red[0] == blue[0]
    first = ask(engine, red)
    hits = engine.stats().prefix_hit_tokens
    assert ask(engine, blue) != first
    assert engine.stats().prefix_hit_tokens == hits == 0
    assert ask(engine, prompt_of(1, 2, RED, 3)) == first
    assert engine.stats().prefix_hit_tokens == 20
    assert len(model.encoded) == 2


def test_only_blocks_that_an_image_reaches_know_of_it() -> None:
    engine, _ = make_engine()
    start = list(range(1, 10))
    ask(engine, prompt_of(*start, RED, 3))
    ask(engine, prompt_of(*start, BLUE, 3))
    assert engine.stats().prefix_hit_tokens == 8
    media = prompt_of(1, 1, 1, 1, RED, 1)[1]
    assert [bool(prefix_part(media, at, at + 4)) for at in range(0, 28, 4)] == [False, *[True] * 5, False]
    assert prefix_part(None, 0, 4) == b""


def test_the_same_image_at_another_place_or_cut_another_way_is_another_prefix() -> None:
    pixels = torch.arange(60, dtype=torch.uint8).reshape(4, 5, 3)
    from PIL import Image

    from support.images import saved

    wide = saved(Image.fromarray(pixels.numpy()), "PNG")
    high = saved(Image.fromarray(pixels.reshape(5, 4, 3).numpy()), "PNG")
    engine, _ = make_engine()
    assert prompt_of(wide)[0] == prompt_of(high)[0]
    assert ask(engine, prompt_of(wide, 1)) != ask(engine, prompt_of(high, 1))
    assert engine.stats().prefix_hit_tokens == 0


def test_a_later_turn_does_not_encode_again() -> None:
    engine, model = make_engine()
    prompt = prompt_of(1, 2, RED, 3)
    said = ask(engine, prompt)
    ask(engine, prompt_of(1, 2, RED, 3, *said, 4, 5))
    assert (
        engine.stats().prefix_hit_tokens == 32
    )  # 23 of the prompt, 10 of the answer, the last of them not computed
    engine, model = make_engine(enable_prefix_caching=False)
    ask(engine, prompt)
    ask(engine, prompt_of(9, RED, BLUE))
    assert len(model.encoded) == 2


@pytest.mark.parametrize("limit", [0, 100, 1 << 20])
def test_features_are_kept_within_the_limit_and_while_they_are_needed(limit: int) -> None:
    engine, model = make_engine(limit, max_num_batched_tokens=3, enable_prefix_caching=False)
    for seed in range(5):
        ask(engine, prompt_of(1, picture(4, 5, seed), 2))
        assert engine._media.num_bytes <= limit
    assert len(model.encoded) == 5  # once each, though seven chunks needed them
    ask(engine, prompt_of(1, picture(4, 5, 4), 2))
    assert len(model.encoded) == (6 if limit == 0 else 5)
    engine.reset_prefix_cache()
    assert engine._media.num_bytes == 0


def test_many_at_once_with_no_room_for_features() -> None:
    engine, model = make_engine(0, max_num_batched_tokens=64, num_blocks=200)
    prompts = {str(i): prompt_of(1, picture(4, 5, i), 2) for i in range(8)}
    for name, (ids, media) in prompts.items():
        engine.add_request(name, ids, GREEDY, media)
    assert answers(engine) == {name: answer_of(*prompt, 10) for name, prompt in prompts.items()}
    assert len(model.encoded) == 8
    assert engine._media.num_bytes == 0


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_preempted_requests_are_recomputed_exactly(limit: int) -> None:
    engine, model = make_engine(
        limit, num_blocks=20, max_model_len=64, max_num_seqs=4, enable_prefix_caching=False
    )
    params = SamplingParams(temperature=0, max_tokens=25, ignore_eos=True)
    prompts = {str(i): prompt_of(1, picture(3, 3, i), 2, 3) for i in range(4)}
    for name, (ids, media) in prompts.items():
        engine.add_request(name, ids, params, media)
    assert answers(engine) == {name: answer_of(*prompt, 25) for name, prompt in prompts.items()}
    assert engine.stats().preemptions > 0
    assert len(model.encoded) > 4 if limit == 0 else len(model.encoded) == 4


def test_a_request_that_is_given_up_leaves_nothing_behind() -> None:
    engine, model = make_engine(0, max_num_batched_tokens=8)
    ids, media = prompt_of(1, RED, 2)
    engine.add_request("a", ids, GREEDY, media)
    engine.step()
    assert (len(model.encoded), engine._media.num_bytes) == (
        1,
        80,
    )  # 20 features of 4 bytes; 7 rows are computed
    engine.abort("a")
    assert engine._media.num_bytes == 0
    assert [update.finish_reason for update in engine.step()] == ["abort"]
    engine.check_integrity()
    ask(engine, prompt_of(1, RED, 2))


def test_several_answers_to_one_image() -> None:
    engine, model = make_engine(max_num_batched_tokens=6)
    ids, media = prompt_of(1, RED, 2)
    engine.add_request("n", ids, SamplingParams(n=3, temperature=0, max_tokens=4), media)
    tokens: dict[int, list[int]] = {}
    while engine.has_work:
        for update in engine.step():
            tokens.setdefault(update.index, []).extend(update.token_ids)
    assert list(tokens.values()) == [answer_of(ids, media, 4)] * 3
    assert len(model.encoded) == 1


@pytest.mark.parametrize("n", [1, 3])
def test_an_image_that_cannot_be_encoded_fails_its_request_only(n: int) -> None:
    from PIL import Image

    from support.images import saved

    engine, _ = make_engine(0, max_num_batched_tokens=64)
    good, also = prompt_of(1, RED, 2), prompt_of(1, BLUE, 2)
    ids, media = prompt_of(1, saved(Image.new("RGB", (4, 5), (UNSEEN, 0, 0)), "PNG"), 2)
    engine.add_request("first", good[0], GREEDY, good[1])
    engine.add_request("bad", ids, SamplingParams(n=n, temperature=0, max_tokens=4), media)
    engine.add_request("last", also[0], GREEDY, also[1])
    tokens: dict[str, list[int]] = {"first": [], "bad": [], "last": []}
    errors = []
    while engine.has_work:
        for update in engine.step():
            tokens[update.request_id] += update.token_ids
            errors += [update.error] if update.error else []
        engine.check_integrity()
    assert tokens == {"first": answer_of(*good, 10), "bad": [], "last": answer_of(*also, 10)}
    assert len(errors) == n
    assert all(isinstance(error, GenerationError) for error in errors)
    assert str(errors[0]) == "request bad: the model failed: RuntimeError: this pixel hurts"
    assert engine.stats().blocks_used == 0
    engine.add_request("alone", ids, GREEDY, media)
    assert [update.finish_reason for update in engine.step()] == ["error"]
    assert not engine.has_work


def test_an_encoder_that_gives_another_number_of_features_is_told() -> None:
    engine, model = make_engine()
    model.encode_media = lambda pixels, grids: torch.zeros(len(pixels) - 1, 1)  # noqa: ARG005
    ids, media = prompt_of(1, RED)
    engine.add_request("r", ids, GREEDY, media)
    (update,) = engine.step()
    assert "encode_media gave features of shape (19, 1) for an image of 20 tokens" in str(update.error)


def test_a_step_with_an_image_is_never_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where each row gets logits and its positions are one number: features would be those of the first."""
    monkeypatch.setattr(ops, "RecordedStep", lambda _: pytest.fail("recorded"))
    one = torch.zeros(1, dtype=torch.int64)
    short = one.int()
    batch = ForwardBatch(
        token_ids=one,
        positions=one,
        query_start=torch.tensor([0, 1], dtype=torch.int32),
        seq_lens=short + 1,
        block_tables=short[None],
        slot_mapping=one,
        state_slots=None,
        last_token=one,
        max_query_len=1,
        max_seq_len=1,
    )
    config = EngineConfig(max_model_len=8, num_blocks=8, block_size=4)
    replay = StepReplay(lambda step: step.token_ids, config)
    media = MediaRows(one, torch.ones(1, 1))
    for changes in ({"media": media, "rope_positions": one[None]}, {"rope_positions": one.expand(3, 1)}):
        assert replay.run(replace(batch, **changes)) is one
