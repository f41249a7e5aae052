"""The place that a text's end repeats, against a search through the whole text."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.engine.acceptance import Acceptance
from inference_pio.engine.drafting import LONGEST_MATCH, SuffixMatcher


def longest_match(tokens: list[int]) -> int:
    """Length of the longest end, up to `LONGEST_MATCH`, that stands somewhere earlier with a token behind it."""
    for length in range(min(LONGEST_MATCH, len(tokens) - 1), 1, -1):
        end = tokens[-length:]
        if any(tokens[i : i + length] == end for i in range(len(tokens) - length)):
            return length
    return 0


# Over so few tokens 3-grams would have more places than are compared; over so many most have one or two.
TEXTS = st.tuples(st.integers(2, 12), st.lists(st.integers(0, 10**6), max_size=60)).map(
    lambda t: [token % t[0] for token in t[1]]
)


@settings(max_examples=300, deadline=None)
@given(tokens=TEXTS, known=st.integers(0, 60))
def test_the_longest_match_is_followed(tokens, known):
    text = tokens[:known]
    matcher = SuffixMatcher(text)
    for token in tokens[known:]:
        expected = matcher.propose(1) if matcher.length else None
        before = matcher.length
        text.append(token)
        outcomes = matcher.advance()
        assert outcomes == ([(before, expected == [token])] if expected else [])
        assert matcher.length <= longest_match(text)
        if len(text) < 18:  # fewer places than are compared
            assert matcher.length == longest_match(text)
        if matcher.length:
            end = text[-matcher.length :]
            places = [i for i in range(matcher.length, len(text)) if text[i - matcher.length : i] == end]
            drafts = [matcher.propose(n) for n in (1, 5, 20)]
            assert drafts[1][:1] == drafts[0]
            assert drafts[2][:5] == drafts[1]
            assert drafts[2] in [continued(text, place, 20) for place in places]


def continued(text: list[int], place: int, count: int) -> list[int]:
    longer = list(text)
    for i in range(count):
        longer.append(longer[place + i])
    return longer[len(text) :]


def test_of_equal_matches_the_latest_is_followed():
    assert SuffixMatcher([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3]).propose(1) == [8]
    assert SuffixMatcher([1, 2, 7, 1, 2, 8, 1, 2]).propose(1) == [8]


def test_a_longer_match_goes_before_a_later_one():
    assert SuffixMatcher([9, 1, 2, 3, 7, 1, 2, 3, 8, 9, 1, 2, 3]).propose(2) == [7, 1]


def test_repetition_is_continued_beyond_the_end():
    assert SuffixMatcher([5, 1, 2, 3, 1, 2, 3]).propose(0) == []
    assert SuffixMatcher([5, 1, 2, 3, 1, 2, 3]).propose(7) == [1, 2, 3, 1, 2, 3, 1]


def test_several_tokens_at_once_are_as_good_as_one_by_one():
    text = [1, 2, 3, 4, 5, 6, 1, 2]
    matcher = SuffixMatcher(text)
    text += [3, 4, 9, 1, 2, 3]
    assert matcher.advance() == [(2, True), (3, True), (4, False), (2, True)]
    assert matcher.length == 3


def test_rates_move_towards_what_is_seen_of_each_length():
    start = Acceptance(memory=8)
    before = start.chances(2, 1) + start.chances(LONGEST_MATCH, 1)
    start.record([(2, True)] * 40)
    after = start.chances(2, 1) + start.chances(LONGEST_MATCH, 1)
    assert after[0] > 0.95 > before[0]
    assert after[1] == before[1]
    own = Acceptance(8, start)
    own.record([(2, False)] * 40)
    assert own.chances(2, 5) == []
    assert start.chances(2, 1)[0] > 0.95


def test_chances_multiply_and_grow_with_the_match():
    acceptance = Acceptance(memory=8)
    chances = acceptance.chances(2, 63)
    assert chances == sorted(chances, reverse=True)
    assert min(chances) > 0
    conditional = [b / a for a, b in pairwise(chances)]
    assert conditional == sorted(conditional)
