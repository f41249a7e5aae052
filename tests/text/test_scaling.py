"""Long monotonous texts cost time in proportion to their length."""

from __future__ import annotations

import time

import pytest

from inference_pio.text.tokenizer import Tokenizer

TEXTS = {"a": "a", "spaces": " ", "parentheses": "(", "opening": "<|", "digits": "1", "newlines": "\n"}


def _seconds(tokenizer: Tokenizer, text: str, *, as_text: bool) -> float:
    start = time.process_time()
    if as_text:
        tokenizer.encode_text(text)
    else:
        tokenizer.encode(text)
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt-2", "qwen3", "llama-spm"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("as_text", [False, True])
def test_eight_times_the_text_is_far_from_64_times_the_work(
    tokenizers: dict[str, Tokenizer], name: str, text: str, as_text: bool
) -> None:
    # Three doublings at once: 2.5 for each leaves room for caches, and none for a square.
    short, long = text * 16_000, text * 128_000
    tokenizer = tokenizers[name]
    _seconds(tokenizer, short, as_text=as_text)
    few = min(_seconds(tokenizer, short, as_text=as_text) for _ in range(3))
    many = min(_seconds(tokenizer, long, as_text=as_text) for _ in range(2))
    assert many < 2.5**3 * few


@pytest.mark.slow
def test_a_space_run_of_a_megabyte_inside_a_text(tokenizers: dict[str, Tokenizer]) -> None:
    text = "x" + " " * 1_000_000 + "y"
    for name in ("gpt-2", "qwen3", "llama-spm"):
        tokenizer = tokenizers[name]
        assert tokenizer.decode(tokenizer.encode_text(text)) == text
