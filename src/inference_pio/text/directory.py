"""A tokenizer out of a model directory: `tokenizer.json` and the small files beside it, as Transformers writes them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import tokenizers

from inference_pio.errors import TokenizerError
from inference_pio.given import is_there, open_to_read
from inference_pio.text.backend import guarded
from inference_pio.text.limits import MAX_FILE_BYTES, MAX_TOKEN_BYTES, MAX_VOCABULARY
from inference_pio.text.parts import TokenizerParts
from inference_pio.text.pieces import SPACE, PieceKind

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # for a pipe that nobody writes to
_MAIN, _SETTINGS, _GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
_SPECIAL_MAP, _TEMPLATE = "special_tokens_map.json", "chat_template.jinja"
# Of models that see: their template once was a file of the processor's, before that of the tokenizer.
_PROCESSOR_TEMPLATE = "chat_template.json"


def read_directory(path: Path) -> TokenizerParts:
    """The parts of a tokenizer; raises `TokenizerError` that names the file where one cannot be used."""
    main = path / _MAIN
    data = _json(main)
    if data is None:
        raise TokenizerError(
            path,
            f"holds no {_MAIN}",
            hint=f"put the model's {_MAIN} there; other tokenizer files are not read",
        )
    vocabulary = _vocabulary(main, data)
    added, special = _added(main, data)
    entries = {**vocabulary, **added}
    _check_ids(main, entries, vocabulary, added)
    kind, byte_tokens, strip_space = _decoder(main, data.get("decoder"))
    backend = guarded(main, "", lambda: tokenizers.Tokenizer.from_buffer(msgspec.json.encode(data)))
    for token, token_id in added.items():
        if backend.token_to_id(token) != token_id:
            raise TokenizerError(
                main, f"{token!r:.60} has id {token_id}, which leaves a hole", where="added_tokens"
            )
    backend.no_truncation()
    backend.no_padding()
    settings = {**(_json(path / _SPECIAL_MAP) or {}), **(_json(path / _SETTINGS) or {})}
    return TokenizerParts(
        path=path,
        backend=backend,
        kind=kind,
        byte_tokens=byte_tokens,
        strip_space=strip_space,
        added=added,
        special_ids=special,
        vocab_size=max(entries.values()) + 1,
        bos_token_id=_named(path, settings, "bos_token", entries),
        eos_token_ids=_ends(path, settings, entries),
        pad_token_id=_named(path, settings, "pad_token", entries),
        chat_template=_chat_template(path, settings),
        affixes=None,
    )


def _json(path: Path) -> dict[str, Any] | None:
    data = _bytes(path)
    if data is None:
        return None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise TokenizerError(path, f"is not JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise TokenizerError(path, "must be a JSON object")
    return value


def _bytes(path: Path) -> bytes | None:
    try:
        if not is_there(path):
            return None
        with open(open_to_read(path, _NO_WAIT), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):  # a device could be read for ever
                raise TokenizerError(path, "is no file: a pipe, a socket, a device or a folder")
            if found.st_size > MAX_FILE_BYTES:
                raise TokenizerError(
                    path, f"has {found.st_size} bytes, more than the {MAX_FILE_BYTES} a tokenizer may have"
                )
            file.seek(0)
            return file.read(found.st_size)
    except OSError as error:
        raise TokenizerError(path, f"cannot be read: {error.strerror}") from error


def _vocabulary(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    model = data.get("model")
    if not isinstance(model, dict):
        raise TokenizerError(path, "is missing or no object", where="model")
    # The first files of this format state no type; their merges tell.
    if model.get("type", "BPE" if "merges" in model else None) != "BPE":
        raise TokenizerError(
            path,
            f"model type {model.get('type')!r:.60} is not supported",
            where="model",
            hint="supported: BPE",
        )
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise TokenizerError(path, "must be an object of tokens and their ids", where="model.vocab")
    return vocabulary


def _added(path: Path, data: dict[str, Any]) -> tuple[dict[str, Any], frozenset[int]]:
    listed = data.get("added_tokens") or []
    added: dict[str, Any] = {}
    special: set[int] = set()
    for index, entry in enumerate(listed if isinstance(listed, list) else [listed]):
        where = f"added_tokens[{index}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or not entry["content"]:
            raise TokenizerError(path, "must be an object with its spelling in `content`", where=where)
        if entry["content"] in added:
            raise TokenizerError(path, f"{entry['content']!r:.60} is listed twice", where=where)
        added[entry["content"]] = entry.get("id")
        if entry.get("special"):
            special.add(entry.get("id"))  # type: ignore[arg-type]  # checked with all other ids
        # Searched in raw text: otherwise a normaliser could turn protected text into a special token.
        entry["normalized"] = False
    return added, frozenset(special)


def _check_ids(
    path: Path, entries: Mapping[str, Any], vocabulary: Mapping[str, Any], added: Mapping[str, Any]
) -> None:
    owners: dict[int, str] = {}
    for token, token_id in entries.items():
        if not isinstance(token_id, int) or not 0 <= token_id < MAX_VOCABULARY:
            raise TokenizerError(
                path, f"{token!r:.60} has id {token_id!r:.40} (0 to {MAX_VOCABULARY - 1} are possible)"
            )
        if owners.setdefault(token_id, token) != token:
            raise TokenizerError(path, f"{owners[token_id]!r:.60} and {token!r:.60} both have id {token_id}")
        if len(token) >= MAX_TOKEN_BYTES or len(token.encode("utf-8", "surrogatepass")) >= MAX_TOKEN_BYTES:
            raise TokenizerError(path, f"token {token_id} has {MAX_TOKEN_BYTES} bytes or more")
    for token in added.keys() & vocabulary.keys():
        if added[token] != vocabulary[token]:
            raise TokenizerError(path, f"{token!r:.60} has ids {vocabulary[token]} and {added[token]}")


def _decoder(path: Path, decoder: Any) -> tuple[PieceKind, bool, bool]:
    """Kind of vocabulary, whether `<0xNN>` is a byte, and whether the first space is taken away."""
    steps = _steps(decoder)
    names = [step.get("type") for step in steps]
    if names == ["ByteLevel"]:
        return "byte-level", False, False
    known = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    if not steps or not set(names) <= known or not ({"Replace", "Metaspace"} & set(names)):
        raise TokenizerError(
            path,
            f"decoder {names} is not supported",
            where="decoder",
            hint="supported: ByteLevel; Metaspace; Replace with ByteFallback, Fuse, Strip",
        )
    for step in steps:
        if not _plain(step):
            raise TokenizerError(path, f"{step!r:.200} is not supported", where="decoder")
    strips = any(
        step["type"] == "Strip"
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )
    return "sentencepiece", "ByteFallback" in names, strips


def _steps(decoder: Any) -> list[dict[str, Any]]:
    if not isinstance(decoder, dict):
        return []
    listed = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    return [step for step in listed if isinstance(step, dict)] if isinstance(listed, list) else []


def _plain(step: Mapping[str, Any]) -> bool:
    match step.get("type"):
        case "Replace":
            return step.get("pattern") == {"String": SPACE} and step.get("content") == " "
        case "Strip":
            return (step.get("content"), step.get("start"), step.get("stop")) == (" ", 1, 0)
        case "Metaspace":
            return step.get("replacement") == SPACE
    return True


def _spelling(path: Path, settings: Mapping[str, Any], name: str) -> str | None:
    value = settings.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise TokenizerError(path / _SETTINGS, f"must be text, is {value!r:.60}", where=name)
    return value


def _named(path: Path, settings: Mapping[str, Any], name: str, entries: Mapping[str, int]) -> int | None:
    spelling = _spelling(path, settings, name)
    if spelling is None:
        return None
    if spelling not in entries:
        raise TokenizerError(path / _SETTINGS, f"{spelling!r:.60} is no token of {_MAIN}", where=name)
    return entries[spelling]


def _ends(path: Path, settings: Mapping[str, Any], entries: Mapping[str, int]) -> tuple[int, ...]:
    own = _named(path, settings, "eos_token", entries)
    listed = (_json(path / _GENERATION) or {}).get("eos_token_id")
    also = [] if listed is None else listed if isinstance(listed, list) else [listed]
    known = set(entries.values())
    for token_id in also:
        if not isinstance(token_id, int) or token_id not in known:
            raise TokenizerError(
                path / _GENERATION, f"{token_id!r:.60} is no token id of {_MAIN}", where="eos_token_id"
            )
    return tuple(dict.fromkeys([*([] if own is None else [own]), *also]))


def _chat_template(path: Path, settings: Mapping[str, Any]) -> str | None:
    data = _bytes(path / _TEMPLATE)
    if data is not None:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(path / _TEMPLATE, "is not UTF-8", byte=error.start) from error
    processors = _json(path / _PROCESSOR_TEMPLATE)
    name = _SETTINGS if processors is None else _PROCESSOR_TEMPLATE
    value = (settings if processors is None else processors).get("chat_template")
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise TokenizerError(path / name, f"must be text, is {value!r:.60}", where="chat_template")
    return value
