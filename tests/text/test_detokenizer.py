"""Text in pieces is the text as a whole."""

from __future__ import annotations

import time
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.text.detokenizer import IncrementalDetokenizer
from inference_pio.text.tokenizer import Tokenizer

NAMES = ("gpt-2", "qwen3", "llama-spm", "phi-3", "stories")
CHARACTERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0"), max_size=8)


def _ids(tokenizer: Tokenizer, max_size: int = 14) -> st.SearchStrategy[list[int]]:
    """Random ids (mostly broken characters), ids of real text, special ones, in any order."""
    some = st.integers(0, min(tokenizer.vocab_size, 600) - 1).map(lambda index: [index])
    every = st.integers(0, tokenizer.vocab_size + 5).map(lambda index: [index])
    special = st.sampled_from(sorted(tokenizer.special_token_ids)).map(lambda index: [index])
    text = CHARACTERS.map(tokenizer.encode_text)
    return st.lists(st.one_of(some, every, special, text), max_size=max_size).map(
        lambda parts: list(chain.from_iterable(parts))
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skip", [True, False])
def test_joined_pieces_are_the_whole(tokenizers: dict[str, Tokenizer], name: str, skip: bool) -> None:
    tokenizer = tokenizers[name]

    @settings(max_examples=60, deadline=None)
    @given(_ids(tokenizer), st.data())
    def check(ids: list[int], data: st.DataObject) -> None:
        whole = tokenizer.decode(ids, skip_special_tokens=skip)
        for cut in range(len(ids) + 1):
            stream = IncrementalDetokenizer(tokenizer, skip_special_tokens=skip)
            assert stream.push(ids[:cut]) + stream.push(ids[cut:]) + stream.finish() == whole
        one_by_one = IncrementalDetokenizer(tokenizer, skip_special_tokens=skip)
        assert "".join([one_by_one.push([token_id]) for token_id in ids]) + one_by_one.finish() == whole
        cut = data.draw(st.integers(0, len(ids)))
        before = IncrementalDetokenizer(tokenizer, skip_special_tokens=skip)
        after = IncrementalDetokenizer(tokenizer, ids[:cut], skip_special_tokens=skip)
        assert before.push(ids[:cut]) + after.push(ids[cut:]) + after.finish() == whole

    check()


@pytest.mark.parametrize("name", NAMES)
def test_characters_come_whole(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer = tokenizers[name]
    text = "🙂é中 👨‍👩‍👧 \U0010fffd𐐀 end"
    stream = IncrementalDetokenizer(tokenizer)
    pieces = [stream.push([token_id]) for token_id in tokenizer.encode_text(text)]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert stream.finish() == ""


def test_a_character_left_incomplete_is_shown_at_the_end_only(stories: Tokenizer) -> None:
    first, second, letter = (stories.token_to_id(token) for token in ("<0xE4>", "<0xB8>", "a"))
    assert first is not None
    assert second is not None
    assert letter is not None
    stream = IncrementalDetokenizer(stories)
    assert stream.push([first, second]) == ""
    assert stream.finish() == "\ufffd"
    stream = IncrementalDetokenizer(stories)
    assert stream.push([first, second]) == ""
    assert stream.push([letter]) == "\ufffda"


def test_the_leading_space_goes_from_a_text_and_not_from_its_continuation(stories: Tokenizer) -> None:
    ids = stories.encode(" Once upon")
    assert IncrementalDetokenizer(stories).push(ids) == " Once upon"
    cut = next(index for index in range(1, len(ids)) if stories.token_bytes(ids[index]).startswith(b" u"))
    assert IncrementalDetokenizer(stories, ids[:cut]).push(ids[cut:]) == " upon"
    begin = stories.bos_token_id
    assert begin is not None
    assert IncrementalDetokenizer(stories, [begin]).push(ids) == " Once upon"


@pytest.mark.slow
def test_a_token_costs_the_same_late_as_early(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["qwen3"]

    def seconds(count: int) -> float:
        stream = IncrementalDetokenizer(tokenizer, list(range(1000)) * (count // 1000))
        start = time.perf_counter()
        for token_id in range(count):
            stream.push([token_id % 1000])
        return time.perf_counter() - start

    seconds(20_000)
    assert min(seconds(80_000) for _ in range(3)) < 2.5 * min(seconds(40_000) for _ in range(3))
