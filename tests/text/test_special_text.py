"""What a person typed never becomes a special token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.errors import UsageError
from inference_pio.text.protect import MARK, Protector, unprotect
from inference_pio.text.tokenizer import Tokenizer
from support.texts import TEXTS

NAMES = ("gpt-2", "qwen2", "qwen3", "llama-spm", "phi-3", "stories")


@pytest.mark.parametrize("name", NAMES)
def test_spelt_special_tokens_are_special_in_prompts_and_text_in_text(
    tokenizers: dict[str, Tokenizer], name: str
) -> None:
    tokenizer = tokenizers[name]
    for token_id in sorted(tokenizer.special_token_ids):
        token = tokenizer.id_to_token(token_id)
        assert token is not None
        text = f"a{token}b{token}{token} c"
        assert tokenizer.encode(text, add_special_tokens=False).count(token_id) == 3
        ids = tokenizer.encode_text(text)
        assert not tokenizer.special_token_ids & set(ids)
        assert tokenizer.decode(ids) == text


def test_added_tokens_that_are_not_special_are_text_too(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["qwen3"]
    thinks = tokenizer.token_to_id("<think>")
    assert thinks not in tokenizer.special_token_ids
    assert thinks in tokenizer.encode("<think>")
    assert thinks not in tokenizer.encode_text("<think>")
    assert thinks not in tokenizer.encode(tokenizer.protect("<think>"))
    assert thinks in tokenizer.encode(tokenizer.protect("<think>", special_only=True))


@pytest.mark.parametrize("name", NAMES)
def test_protected_text_has_the_ids_of_its_plain_characters(
    tokenizers: dict[str, Tokenizer], name: str
) -> None:
    tokenizer = tokenizers[name]
    for text in TEXTS:
        marked = tokenizer.protect(text)
        assert unprotect(marked) == text
        assert tokenizer.encode(marked, add_special_tokens=False) == tokenizer.encode_text(text)
        if MARK not in marked:
            assert tokenizer.encode(text, add_special_tokens=False) == tokenizer.encode_text(text)


def test_the_ids_are_those_of_a_vocabulary_without_special_tokens(
    vocabularies: dict[str, dict[str, Any]],
) -> None:
    metadata = vocabularies["qwen2"]
    types = [1] * len(metadata["tokenizer.ggml.tokens"])
    bare = Tokenizer.from_gguf({**metadata, "tokenizer.ggml.token_type": types}, Path("x"))
    whole = Tokenizer.from_gguf(metadata, Path("x"))
    for text in TEXTS:
        assert whole.encode_text(text) == bare.encode(text)


def test_runs_of_spaces_that_a_vocabulary_adds_are_ordinary_text(
    vocabularies: dict[str, dict[str, Any]],
) -> None:
    metadata = vocabularies["gpt-2"]
    tokens = [*metadata["tokenizer.ggml.tokens"], "        "]
    types = [*metadata["tokenizer.ggml.token_type"], 4]
    keys = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    tokenizer = Tokenizer.from_gguf({**metadata, **keys}, Path("x"))
    ids = tokenizer.encode("if x:\n        y")
    assert ids.count(50257) == 1
    assert tokenizer.encode_text("if x:\n        y") == ids
    assert tokenizer.decode(ids) == "if x:\n        y"


@settings(max_examples=300, deadline=None)
@given(
    strings=st.lists(st.text("ab<", min_size=2, max_size=4), min_size=1, max_size=5),
    text=st.text("ab< ", max_size=20),
)
def test_no_spelling_survives_protection(strings: list[str], text: str) -> None:
    marked = Protector(strings).protect(text)
    assert not any(string in marked for string in strings)
    assert unprotect(marked) == text
    if not any(string in text for string in strings):
        assert marked == text


def test_text_that_holds_the_mark_is_refused(stories: Tokenizer) -> None:
    with pytest.raises(UsageError, match="character 2 is U\\+FDD0"):
        stories.encode_text(f"ab{MARK}")
