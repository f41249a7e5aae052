"""A tokenizer out of the metadata of a GGUF file (`tokenizer.*` keys, ggml's docs/gguf.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, normalizers

from inference_pio.errors import TokenizerError
from inference_pio.text.backend import guarded
from inference_pio.text.limits import MAX_TOKEN_BYTES, MAX_VOCABULARY
from inference_pio.text.parts import TokenizerParts
from inference_pio.text.pieces import SPACE
from inference_pio.text.pretokenizers import PRE_TOKENIZERS, PreTokenizer, word_splitter
from inference_pio.text.spm_merges import merges_from_scores

_MODELS = {"gpt2": "byte-level BPE", "llama": "SentencePiece by scores"}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_SPECIAL = (_UNKNOWN, _CONTROL)
_KEY = "tokenizer.ggml."


def read_gguf(metadata: Mapping[str, Any], path: Path) -> TokenizerParts:
    """The parts of a tokenizer; raises `TokenizerError` that names the key where a value cannot be used."""
    keys = _Keys(metadata, path)
    model = keys.text("model")
    if model not in _MODELS:
        known = ", ".join(f"{name} ({words})" for name, words in _MODELS.items())
        raise keys.error("model", f"tokenizer model {model!r} is not supported", hint=f"supported: {known}")
    tokens = _tokens(keys)
    types = keys.numbers("token_type", len(tokens), int) or [_NORMAL] * len(tokens)
    if wrong := next((kind for kind in types if kind not in range(7)), None):
        raise keys.error("token_type", f"{wrong} is not a token type (0 to 6)")
    byte_level = model == "gpt2"
    kind = _pre_tokenizer(keys) if byte_level else None
    backend = (
        _byte_level(keys, tokens, types, kind) if kind is not None else _sentencepiece(keys, tokens, types)
    )
    added = {token: index for index, token in enumerate(tokens) if types[index] in (*_SPECIAL, _USER_DEFINED)}
    special = frozenset(index for index, kind in enumerate(types) if kind in _SPECIAL)
    entries = [
        AddedToken(token, normalized=False, special=index in special)
        for token, index in added.items()
        if token
    ]
    guarded(path, _KEY + "tokens", lambda: backend.add_tokens(entries))
    bos, eos = keys.token_id("bos_token_id", len(tokens)), keys.token_id("eos_token_id", len(tokens))
    ends = [eos, keys.token_id("eot_token_id", len(tokens)), keys.token_id("eom_token_id", len(tokens))]
    add_bos = keys.flag("add_bos_token", kind.add_bos if kind is not None else True)
    add_eos = keys.flag("add_eos_token", False)
    return TokenizerParts(
        path=path,
        backend=backend,
        kind="byte-level" if byte_level else "sentencepiece",
        byte_tokens=not byte_level,
        strip_space=not byte_level and keys.flag("add_space_prefix", True),
        added=added,
        special_ids=special,
        vocab_size=len(tokens),
        bos_token_id=bos,
        eos_token_ids=tuple(dict.fromkeys(token_id for token_id in ends if token_id is not None)),
        pad_token_id=keys.token_id("padding_token_id", len(tokens)),
        chat_template=keys.chat_template(),
        affixes=(_affix(keys, "bos_token_id", bos, add_bos), _affix(keys, "eos_token_id", eos, add_eos)),
    )


def _affix(keys: _Keys, name: str, token_id: int | None, wanted: bool) -> tuple[int, ...]:
    if not wanted:
        return ()
    if token_id is None:
        raise keys.error(name, "is missing, but texts are to be given this token")
    return (token_id,)


def _tokens(keys: _Keys) -> list[str]:
    tokens = keys.strings("tokens")
    if tokens is None:
        raise keys.error("tokens", "is missing: the file holds no vocabulary")
    if not 0 < len(tokens) <= MAX_VOCABULARY:
        raise keys.error("tokens", f"{len(tokens)} entries (1 to {MAX_VOCABULARY} are possible)")
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if len(token.encode("utf-8", errors="surrogatepass")) >= MAX_TOKEN_BYTES:
            raise keys.error("tokens", f"entry {index} has {MAX_TOKEN_BYTES} bytes or more")
        if seen.setdefault(token, index) != index and token:
            raise keys.error("tokens", f"entries {seen[token]} and {index} are both {token!r:.60}")
    # An entry without a spelling can be no token of a text; the library needs a key for it all the same.
    return [token or f"[EMPTY {index}]" for index, token in enumerate(tokens)]


def _pre_tokenizer(keys: _Keys) -> PreTokenizer:
    name = keys.text("pre")
    if name not in PRE_TOKENIZERS:
        raise keys.error(
            "pre",
            f"pre-tokenizer {name!r} is not supported",
            hint=f"supported: {', '.join(sorted(PRE_TOKENIZERS))}",
        )
    return PRE_TOKENIZERS[name]


def _byte_level(
    keys: _Keys, tokens: Sequence[str], types: Sequence[int], kind: PreTokenizer
) -> tokenizers.Tokenizer:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = []
    lines = keys.strings("merges")
    if lines is None:
        raise keys.error("merges", "is missing")
    for index, line in enumerate(lines):
        cut = line.find(" ", 1)
        left, right = line[:cut], line[cut + 1 :]
        unknown = next((part for part in (left, right, left + right) if part not in vocabulary), None)
        if cut < 0 or unknown is not None:
            raise keys.error(
                "merges", f"merge {index} ({line!r:.60}) names {unknown!r:.60}, which is no token"
            )
        # A special token comes out of its own spelling as a whole, never out of merging.
        if types[vocabulary[left + right]] not in _SPECIAL:
            merges.append((left, right))
    model = guarded(
        keys.path,
        _KEY + "merges",
        lambda: models.BPE(vocabulary, merges, ignore_merges=kind.whole_words, fuse_unk=False),
    )
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = word_splitter(kind)
    return backend


def _sentencepiece(keys: _Keys, tokens: Sequence[str], types: Sequence[int]) -> tokenizers.Tokenizer:
    scores = keys.numbers("scores", len(tokens), float)
    if scores is None:
        raise keys.error("scores", "is missing")
    if not all(map(math.isfinite, scores)):
        raise keys.error("scores", "a score is not a finite number")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    scored = [
        (token, scores[index]) for index, token in enumerate(tokens) if types[index] in (0, _NORMAL, _UNUSED)
    ]
    unknown = keys.token_id("unknown_token_id", len(tokens))
    covered = all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    if unknown is None and not covered:
        raise keys.error("tokens", "neither 256 byte entries nor an unknown token: some texts have no ids")
    merges = merges_from_scores(vocabulary, scored)
    model = guarded(
        keys.path,
        _KEY + "tokens",
        lambda: models.BPE(
            vocabulary,
            merges,
            byte_fallback=True,
            fuse_unk=True,
            unk_token=tokens[unknown] if unknown is not None else None,
        ),
    )
    backend = tokenizers.Tokenizer(model)
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    if keys.flag("add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(SPACE))
    backend.normalizer = normalizers.Sequence(spaces)
    return backend


class _Keys:
    """Typed look-ups in the metadata; every complaint names file and key."""

    def __init__(self, metadata: Mapping[str, Any], path: Path) -> None:
        self._metadata, self.path = metadata, path

    def error(self, name: str, what: str, hint: str = "") -> TokenizerError:
        return TokenizerError(self.path, what, where=_KEY + name, hint=hint)

    def text(self, name: str) -> str:
        value = self._metadata.get(_KEY + name)
        if not isinstance(value, str):
            raise self.error(name, "is missing" if value is None else f"must be text, is {value!r:.60}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._metadata.get(_KEY + name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, is {value!r:.60}")
        return value

    def token_id(self, name: str, count: int) -> int | None:
        value = self._metadata.get(_KEY + name)
        if value is None:
            return None
        if not isinstance(value, int) or not 0 <= value < count:
            raise self.error(name, f"{value!r:.60} is not one of the {count} token ids")
        return value

    def strings(self, name: str) -> list[str] | None:
        value = self._metadata.get(_KEY + name)
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self.error(name, "must be a list of strings")
        if wrong := [item for item in value if not isinstance(item, str)]:
            raise self.error(name, f"must be a list of strings, holds {wrong[0]!r:.60}")
        return list(value)

    def numbers(self, name: str, count: int, kind: type) -> list[Any] | None:
        value = self._metadata.get(_KEY + name)
        if value is None:
            return None
        listed = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise self.error(name, "must be a list of numbers")
        if len(listed) != count:
            raise self.error(name, f"has {len(listed)} entries for {count} tokens")
        allowed = (int,) if kind is int else (int, float)
        if wrong := [item for item in listed if not isinstance(item, allowed) or isinstance(item, bool)]:
            raise self.error(name, f"must be a list of numbers, holds {wrong[0]!r:.60}")
        return list(listed)

    def chat_template(self) -> str | None:
        value = self._metadata.get("tokenizer.chat_template")
        if value is not None and not isinstance(value, str):
            raise TokenizerError(self.path, "must be text", where="tokenizer.chat_template")
        return value
