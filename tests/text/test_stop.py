"""Stop strings across every border, against a search in the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.sampling_params import SamplingParams
from inference_pio.text.stop import StopStrings
from inference_pio.text.stream import TextStream
from inference_pio.text.tokenizer import Tokenizer


def _expected(text: str, strings: Sequence[str], include: bool) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        hits = [string for string in strings if text[:end].endswith(string)]
        if hits:
            hit = max(hits, key=len)
            return text[: end if include else end - len(hit)], hit
    return text, None


def _run(pieces: Sequence[str], strings: Sequence[str], include: bool) -> tuple[str, str | None]:
    stop = StopStrings(strings, include)
    shown = ""
    for piece in pieces:
        text, hit = stop.push(piece)
        shown += text
        if hit is not None:
            assert stop.push("more") == ("", hit)
            assert stop.finish() == ""
            return shown, hit
    return shown + stop.finish(), None


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ("one END two", ["END"]),
        ("aaab", ["aab"]),
        ("abababac!", ["ababac"]),
        ("x\n\ny", ["\n\n", "\n"]),
        ("abc", ["abc", "bc", "c"]),
        ("none here EN", ["END"]),
        ("日本語です。", ["です"]),
    ],
)
def test_every_way_to_cut_a_text(text: str, strings: list[str], include: bool) -> None:
    expected = _expected(text, strings, include)
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert _run([text[:first], text[first:second], text[second:]], strings, include) == expected
    assert _run(list(text), strings, include) == expected


@settings(max_examples=500, deadline=None)
@given(
    text=st.text("ab", max_size=20),
    strings=st.lists(st.text("ab", min_size=1, max_size=5), max_size=4),
    cuts=st.lists(st.integers(0, 20), max_size=6).map(sorted),
    include=st.booleans(),
)
def test_any_text_any_strings(text: str, strings: list[str], cuts: list[int], include: bool) -> None:
    borders = [0, *cuts, len(text)]
    pieces = [text[start:end] for start, end in pairwise(borders)]
    assert _run(pieces, strings, include) == _expected(text, strings, include)


def test_only_what_may_become_a_stop_string_waits() -> None:
    stop = StopStrings(["\n\nUser:"], include=False)
    assert stop.push("Hello.\n") == ("Hello.", None)
    assert stop.push("\nUs") == ("", None)
    assert stop.push("ual") == ("\n\nUsual", None)
    assert stop.finish() == ""


@pytest.mark.parametrize("name", ["gpt-2", "qwen3", "llama-spm", "stories"])
@pytest.mark.parametrize("include", [False, True])
def test_a_stream_stops_inside_tokens(tokenizers: dict[str, Tokenizer], name: str, include: bool) -> None:
    tokenizer = tokenizers[name]
    text = "Once upon a time there was 🙂 a girl."
    ids = tokenizer.encode_text(text)
    for stop in ("me th", "🙂", " a g", "nothing of it", "l."):
        params = SamplingParams(stop=stop, include_stop_str_in_output=include)
        for cut in range(len(ids) + 1):
            stream = TextStream(tokenizer, params)
            shown, hit = stream.push(ids[:cut])
            if hit is None:
                more, hit = stream.push(ids[cut:])
                shown += more
            if hit is None:
                shown += stream.finish()
            assert (shown, hit) == _expected(text, [stop], include)


def test_a_stream_shows_special_tokens_if_asked(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["qwen3"]
    ids = tokenizer.encode("Hi<|im_end|>")
    assert TextStream(tokenizer, SamplingParams()).push(ids) == ("Hi", None)
    shown = TextStream(tokenizer, SamplingParams(skip_special_tokens=False, stop="<|im_end|>"))
    assert shown.push(ids) == ("Hi", "<|im_end|>")
