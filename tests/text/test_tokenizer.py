"""Ids and text against published cases and Transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import decoders, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from inference_pio.errors import UsageError
from inference_pio.text.gguf_tokenizer import read_gguf
from inference_pio.text.pretokenizers import PRE_TOKENIZERS, word_splitter
from inference_pio.text.tokenizer import Tokenizer
from support.texts import TEXTS
from support.vocabularies import cases, tokenizer_metadata

PUBLISHED = [
    ("gpt-2", "gpt-2"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen2"),
    ("llama-spm", "llama-spm"),
    ("phi-3", "phi-3"),
]


@pytest.mark.parametrize(("name", "published"), PUBLISHED)
def test_ids_are_the_published_ones(tokenizers: dict[str, Tokenizer], name: str, published: str) -> None:
    tokenizer = tokenizers[name]
    listed = cases(published)
    assert len(listed) == 47
    for text, ids in listed:
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.encode_text(text) == ids, text
        assert tokenizer.decode(ids) == text


def test_qwen3_equals_transformers(tokenizers: dict[str, Tokenizer], qwen3_path: Path) -> None:
    ours, theirs = tokenizers["qwen3"], PreTrainedTokenizerFast.from_pretrained(qwen3_path)
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids, text
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
    assert ours.special_token_ids == {
        token_id for token_id, token in theirs.added_tokens_decoder.items() if token.special
    }
    assert (ours.bos_token, ours.eos_token) == (theirs.bos_token, theirs.eos_token)
    assert ours.pad_token_id == theirs.pad_token_id
    assert ours.vocab_size == len(theirs) == 151669
    assert ours.chat_template == theirs.chat_template


@pytest.mark.weights
@pytest.mark.slow
def test_smollm2_equals_transformers(smollm2_path: Path) -> None:
    ours = Tokenizer.from_gguf(tokenizer_metadata(smollm2_path), smollm2_path)
    theirs = AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)
    # Transformers overlooks the file's `tokenizer.ggml.pre`; this is what SmolLM2's own tokenizer.json states.
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(
            ids, clean_up_tokenization_spaces=False
        )
    assert (ours.bos_token, ours.eos_token) == ("<|im_start|>", "<|im_end|>")


def test_begin_and_end_tokens(vocabularies: dict[str, dict[str, object]], stories: Tokenizer) -> None:
    plain = stories.encode("Once", add_special_tokens=False)
    assert stories.encode("Once") == [1, *plain]
    keys = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True}
    assert Tokenizer.from_gguf({**vocabularies["stories"], **keys}, Path("x")).encode("Once") == [*plain, 2]


def test_every_named_end_counts(vocabularies: dict[str, dict[str, object]]) -> None:
    keys = {"tokenizer.ggml.eot_token_id": 151645, "tokenizer.ggml.eom_token_id": 151643}
    tokenizer = Tokenizer.from_gguf({**vocabularies["qwen2"], **keys}, Path("x"))
    assert tokenizer.eos_token_ids == (151643, 151645)
    assert [tokenizer.id_to_token(token_id) for token_id in tokenizer.eos_token_ids] == [
        "<|endoftext|>",
        "<|im_end|>",
    ]


def test_a_space_is_put_before_a_text_only_where_the_file_says_so(
    vocabularies: dict[str, dict[str, object]], stories: Tokenizer
) -> None:
    without = Tokenizer.from_gguf(
        {**vocabularies["stories"], "tokenizer.ggml.add_space_prefix": False}, Path("x")
    )
    assert stories.encode_text("Once") == without.encode_text(" Once") != without.encode_text("Once")
    assert without.decode(without.encode_text(" Once")) == " Once"
    assert stories.decode(stories.encode_text(" Once")) == " Once"


@pytest.mark.parametrize("name", ["gpt-2", "qwen2", "qwen3", "llama-spm", "stories"])
def test_bytes_of_tokens_make_the_text(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer = tokenizers[name]
    for text in TEXTS:
        ids = tokenizer.encode_text(text)
        joined = b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8")
        # Qwen3 normalises to NFC; all others are lossless.
        assert name == "qwen3" or joined == (" " * tokenizer.strips_leading_space if text else "") + text
        assert tokenizer.decode(ids) == joined.removeprefix(" " * tokenizer.strips_leading_space)


def test_ids_that_no_token_has_are_no_text(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["qwen3"]
    assert tokenizer.id_to_token(151900) is None
    assert tokenizer.decode([9707, 151900]) == "Hello"
    with pytest.raises(UsageError, match="-1 is not a token id"):
        tokenizer.decode([-1])


def test_half_a_surrogate_pair_is_refused_with_its_place(stories: Tokenizer) -> None:
    with pytest.raises(UsageError, match="character 3 is U\\+DC80"):
        stories.encode("abc\udc80")
    assert stories.decode(stories.encode("a\x00b")) == "a\x00b"


def test_a_text_beyond_all_contexts_is_refused_with_both_numbers(stories: Tokenizer) -> None:
    with pytest.raises(UsageError, match="8000001 characters, more than the 8000000"):
        stories.encode_text(" " * 8_000_001)


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_cuts_and_loses_nothing(name: str) -> None:
    splitter = word_splitter(PRE_TOKENIZERS[name])
    for text in TEXTS:
        spans = [span for _, span in splitter.pre_tokenize_str(text)]
        assert "".join(text[start:end] for start, end in spans) == text
    words = [text for text, _ in splitter.pre_tokenize_str("Hello  there 12345")]
    assert words[0] == "Hello"
    assert len(words) > 2


def test_importing_needs_no_torch() -> None:
    code = "import sys, inference_pio.text.chat, inference_pio.text.stream; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_sentencepiece_directory_equals_transformers(
    vocabularies: dict[str, dict[str, object]], tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    # What Transformers writes for such a vocabulary: the same merges, its own decoder and post-processor.
    backend = read_gguf(vocabularies["llama-spm"], Path("x")).backend
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(
        tmp_path
    )
    theirs, ours = PreTrainedTokenizerFast.from_pretrained(tmp_path), Tokenizer.from_directory(tmp_path)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text) == tokenizers["llama-spm"].encode(text)
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
            assert tokenizers["llama-spm"].decode(ids, skip_special_tokens=skip) == expected
    assert (ours.bos_token, ours.eos_token, ours.vocab_size) == ("<s>", "</s>", 32000)
