"""Ranked merges against merging by score, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.text.spm_merges import merges_from_scores
from inference_pio.text.tokenizer import Tokenizer
from support.spm_reference import encode
from support.vocabularies import cases


def _reference(metadata: dict[str, Any], text: str) -> list[int]:
    tokens = metadata["tokenizer.ggml.tokens"]
    listed = zip(
        tokens, metadata["tokenizer.ggml.scores"], metadata["tokenizer.ggml.token_type"], strict=True
    )
    scores = {token: score for token, score, kind in listed if kind == 1}
    return encode(text, scores, {token: index for index, token in enumerate(tokens)})


def test_the_reference_itself_gives_the_published_ids(vocabularies: dict[str, dict[str, Any]]) -> None:
    for text, ids in cases("llama-spm"):
        assert _reference(vocabularies["llama-spm"], text) == ids


@pytest.mark.parametrize("name", ["stories", "llama-spm"])
def test_merging_by_rank_is_merging_by_score(
    name: str, vocabularies: dict[str, dict[str, Any]], tokenizers: dict[str, Tokenizer]
) -> None:
    metadata, tokenizer = vocabularies[name], tokenizers[name]
    words = [token.replace("\u2581", " ") for token in metadata["tokenizer.ggml.tokens"][259:]]
    piece = st.one_of(
        st.sampled_from(words),
        st.text("ab anst the\n\té中🙂", max_size=8),
        st.just(" ").map(lambda s: s * 21),
    )

    @settings(max_examples=150, deadline=None)
    @given(st.lists(piece, max_size=8).map("".join))
    def check(text: str) -> None:
        assert tokenizer.encode_text(text) == _reference(metadata, text)

    check()


@settings(max_examples=300, deadline=None)
@given(
    entries=st.lists(st.text("ab", min_size=2, max_size=7), unique=True, max_size=12),
    text=st.text("ab", max_size=24),
)
def test_any_vocabulary_with_distinct_scores(entries: list[str], text: str) -> None:
    metadata = _tiny(entries)
    assert Tokenizer.from_gguf(metadata, Path("tiny")).encode_text(text) == _reference(metadata, text)


def test_cuts_of_one_entry_are_ordered_so_that_the_leftmost_wins() -> None:
    vocabulary = {token: index for index, token in enumerate(["a", "b", "ab", "ba", "aba"])}
    merges = merges_from_scores(vocabulary, [("ab", 3.0), ("ba", 2.0), ("aba", 1.0)])
    assert merges == [("a", "b"), ("b", "a"), ("ab", "a"), ("a", "ba")]


def _tiny(entries: list[str]) -> dict[str, Any]:
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", *entries]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(index) for index in range(len(tokens))],
        "tokenizer.ggml.token_type": [2] + [6] * 256 + [1] * (3 + len(entries)),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
