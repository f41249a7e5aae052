"""Tokenizer files that are wrong: one error that names file and place, whatever the library makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_pio.errors import TokenizerError
from inference_pio.text.tokenizer import Tokenizer

Change = Callable[[dict[str, Any]], object]
PREFIX = "tokenizer.ggml."


def _set(key: str, value: Any) -> Change:
    return lambda metadata: metadata.update({PREFIX + key: value})


def _edit(key: str, index: int, value: Any) -> Change:
    def change(metadata: dict[str, Any]) -> None:
        metadata[PREFIX + key] = [*metadata[PREFIX + key]]
        metadata[PREFIX + key][index] = value

    return change


GGUF_CASES: dict[str, tuple[str, Change, str]] = {
    "no model": ("gpt-2", lambda m: m.pop(PREFIX + "model"), "tokenizer.ggml.model: is missing"),
    "bert": ("gpt-2", _set("model", "bert"), r"'bert' is not supported \(supported: gpt2 .*llama"),
    "t5": ("gpt-2", _set("model", "t5"), "'t5' is not supported"),
    "no pre": ("gpt-2", lambda m: m.pop(PREFIX + "pre"), "tokenizer.ggml.pre: is missing"),
    "unknown pre": (
        "gpt-2",
        _set("pre", "mine"),
        r"pre-tokenizer 'mine' is not supported \(supported: .*qwen2.*smollm",
    ),
    "no tokens": ("gpt-2", lambda m: m.pop(PREFIX + "tokens"), "holds no vocabulary"),
    "tokens of numbers": ("gpt-2", _set("tokens", [1, 2]), "must be a list of strings"),
    "empty": ("gpt-2", _set("tokens", []), "0 entries"),
    "twice": ("gpt-2", _edit("tokens", 7, "!"), "entries 0 and 7 are both '!'"),
    "long token": ("gpt-2", _edit("tokens", 7, "x" * 65536), "entry 7 has 65536 bytes or more"),
    "types short": ("gpt-2", _set("token_type", [1, 1]), "2 entries for 50257 tokens"),
    "types wrong": ("gpt-2", _edit("token_type", 3, 9), "9 is not a token type"),
    "types of text": ("gpt-2", _edit("token_type", 3, "1"), "must be a list of numbers"),
    "no merges": ("gpt-2", lambda m: m.pop(PREFIX + "merges"), "tokenizer.ggml.merges: is missing"),
    "merge unknown": ("gpt-2", _edit("merges", 5, "zz qq-"), "merge 5 .* names"),
    "merge of one": ("gpt-2", _edit("merges", 5, "zz"), "merge 5"),
    "eos out of range": ("gpt-2", _set("eos_token_id", 50257), "eos_token_id: 50257 is not one of the 50257"),
    "bos negative": ("gpt-2", _set("bos_token_id", -1), "bos_token_id: -1 is not one"),
    "bos text": ("gpt-2", _set("bos_token_id", "<s>"), "bos_token_id: '<s>' is not one"),
    "flag": ("gpt-2", _set("add_bos_token", 1), "must be true or false"),
    "template": ("gpt-2", lambda m: m.update({"tokenizer.chat_template": 5}), "chat_template: must be text"),
    "no scores": ("stories", lambda m: m.pop(PREFIX + "scores"), "tokenizer.ggml.scores: is missing"),
    "scores long": ("stories", _set("scores", [0.0] * 513), "513 entries for 512 tokens"),
    "score nan": ("stories", _edit("scores", 300, float("nan")), "not a finite number"),
    "no begin token": ("stories", lambda m: m.pop(PREFIX + "bos_token_id"), "bos_token_id: is missing"),
    "no bytes": (
        "stories",
        lambda m: (_edit("tokens", 9, "<oops>")(m), m.pop(PREFIX + "unknown_token_id")),
        "neither 256 byte entries nor an unknown token",
    ),
}


@pytest.mark.parametrize("case", GGUF_CASES)
def test_gguf(case: str, vocabularies: dict[str, dict[str, Any]]) -> None:
    name, change, message = GGUF_CASES[case]
    metadata = dict(vocabularies[name])
    change(metadata)
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.from_gguf(metadata, Path("model.gguf"))
    assert str(caught.value).startswith("model.gguf: tokenizer.")
    assert "\n" not in str(caught.value)


def _good() -> dict[str, Any]:
    return {
        "version": "1.0",
        "added_tokens": [{"id": 4, "content": "<end>", "special": True, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {"a": 0, "b": 1, "ab": 2, "abab": 3}, "merges": [["a", "b"], ["ab", "ab"]]},
    }  # fmt: skip


def _model(key: str, value: Any) -> Change:
    return lambda data: data["model"].update({key: value})


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


JSON_CASES: dict[str, tuple[Change, str]] = {
    "no model": (lambda d: d.pop("model"), "model: is missing"),
    "unknown model": (_model("type", "Mystery"), r"'Mystery' is not supported \(supported: BPE\)"),
    "other model": (_model("type", "WordPiece"), "'WordPiece' is not supported"),
    "no vocabulary": (_model("vocab", []), "model.vocab: must be an object"),
    "id too large": (_model("vocab", {"a": 4294967295}), "'a' has id 4294967295"),
    "id beyond 32 bits": (_model("vocab", {"a": 2**40}), "has id 1099511627776"),
    "id negative": (_model("vocab", {"a": -1}), "has id -1"),
    "id text": (_model("vocab", {"a": "0"}), "has id '0'"),
    "id twice": (_model("vocab", {"a": 0, "b": 0}), "'a' and 'b' both have id 0"),
    "long token": (_model("vocab", {"a": 0, "b" * 65536: 1}), "65536 bytes or more"),
    "merge unknown": (_model("merges", [["a", "zz"]]), "the tokenizer cannot be used"),
    "merges of numbers": (_model("merges", [[1, 2]]), "the tokenizer cannot be used"),
    "added far outside": (lambda d: d["added_tokens"][0].update(id=999999), "leaves a hole"),
    "added contradicts": (lambda d: d["added_tokens"][0].update(content="a", id=9), "'a' has ids 0 and 9"),
    "added takes an id": (lambda d: d["added_tokens"][0].update(id=0), "both have id 0"),
    "added without text": (lambda d: d["added_tokens"][0].pop("content"), r"added_tokens\[0\]"),
    "added twice": (lambda d: d["added_tokens"].append({**d["added_tokens"][0], "id": 5}), "listed twice"),
    "added no list": (lambda d: d.update(added_tokens="x"), r"added_tokens\[0\]"),
    "bad regex": (lambda d: d.update(pre_tokenizer=_split("(")), "the tokenizer cannot be used"),
    "unknown decoder": (
        lambda d: d.update(decoder={"type": "CTC"}),
        r"decoder: decoder \['CTC'\] is not supported",
    ),
    "no decoder": (lambda d: d.update(decoder=None), "is not supported"),
    "wrong pre-tokenizer": (
        lambda d: d.update(pre_tokenizer={"type": "Nope"}),
        "the tokenizer cannot be used",
    ),
}


def _write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize("case", JSON_CASES)
def test_tokenizer_json(case: str, tmp_path: Path) -> None:
    change, message = JSON_CASES[case]
    data = _good()
    _write(tmp_path, "tokenizer.json", data)
    assert Tokenizer.from_directory(tmp_path).encode("abab<end>") == [3, 4]
    change(data)
    _write(tmp_path, "tokenizer.json", data)
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.from_directory(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "tokenizer.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is not JSON"), ("[]", "must be a JSON object"), ("{", "is not JSON"), ("[" * 100_000, "is not JSON"),
     ('{"a": NaN}', "is not JSON")],
)  # fmt: skip
def test_files_that_are_no_json(content: str, message: str, tmp_path: Path) -> None:
    _write(tmp_path, "tokenizer.json", content)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_directory(tmp_path)


def test_a_directory_without_a_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        TokenizerError, match=r"holds no tokenizer\.json \(put the model's tokenizer\.json there"
    ):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tokenizer_config.json", {"eos_token": "</none>"}, "eos_token: '</none>' is no token"),
        ("tokenizer_config.json", {"bos_token": 5}, "bos_token: must be text"),
        ("tokenizer_config.json", {"chat_template": 5}, "chat_template: must be text"),
        ("special_tokens_map.json", {"eos_token": {"content": "</none>"}}, "'</none>' is no token"),
        ("generation_config.json", {"eos_token_id": [4, 999]}, "999 is no token id"),
        ("generation_config.json", "nonsense", "is not JSON"),
    ],
)
def test_wrong_side_files(name: str, value: Any, message: str, tmp_path: Path) -> None:
    _write(tmp_path, "tokenizer.json", _good())
    _write(tmp_path, name, value)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_directory(tmp_path)


def test_side_files_are_read(tmp_path: Path) -> None:
    _write(tmp_path, "tokenizer.json", _good())
    _write(tmp_path, "tokenizer_config.json", {"eos_token": {"content": "<end>"}, "chat_template": "old"})
    _write(tmp_path, "special_tokens_map.json", {"pad_token": "b"})
    _write(tmp_path, "generation_config.json", {"eos_token_id": [2, 4]})
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer.eos_token_ids == (4, 2)
    assert (tokenizer.eos_token, tokenizer.pad_token_id, tokenizer.bos_token) == ("<end>", 1, None)
    assert tokenizer.chat_template == "old"
    _write(tmp_path, "chat_template.json", {"chat_template": "the processor's"})
    assert Tokenizer.from_directory(tmp_path).chat_template == "the processor's"
    _write(tmp_path, "chat_template.json", {"chat_template": 5})
    with pytest.raises(TokenizerError, match=r"chat_template\.json: chat_template: must be text, is 5"):
        Tokenizer.from_directory(tmp_path)
    _write(tmp_path, "chat_template.jinja", "new")
    assert Tokenizer.from_directory(tmp_path).chat_template == "new"


def test_a_list_of_templates_has_a_default(tmp_path: Path) -> None:
    _write(tmp_path, "tokenizer.json", _good())
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    _write(tmp_path, "tokenizer_config.json", {"chat_template": named})
    assert Tokenizer.from_directory(tmp_path).chat_template == "d"


def test_a_catastrophic_pattern_fails_its_text_and_not_the_process(tmp_path: Path) -> None:
    data = _good()
    data["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [_split("(a+)+(?=c)"), data["pre_tokenizer"]],
    }
    _write(tmp_path, "tokenizer.json", data)
    tokenizer = Tokenizer.from_directory(tmp_path)
    try:
        ids = tokenizer.encode("a" * 40)
    except TokenizerError as error:
        assert "encoding" in str(error)  # noqa: PT017  # either outcome is right
    else:
        assert ids == [0] * 40
