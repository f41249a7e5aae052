"""Text to token ids and back, for one vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import normalizers

from inference_pio.text.backend import guarded
from inference_pio.text.directory import read_directory
from inference_pio.text.gguf_tokenizer import read_gguf
from inference_pio.text.limits import check_ids, check_text
from inference_pio.text.parts import TokenizerParts
from inference_pio.text.pieces import piece_bytes
from inference_pio.text.protect import MARK, Protector


class Tokenizer:
    """Encodes and decodes. Threads may share one.

    Spellings of special tokens count as special tokens in `encode`, and never in `encode_text`. Added
    entries of white space or of one character that are not special (GPT-NeoX's runs of spaces) are ordinary
    text everywhere.
    """

    def __init__(self, parts: TokenizerParts) -> None:
        self._parts = parts
        self._backend = parts.backend
        # The mark goes before anything else sees the text: `inference_pio.text.protect`.
        unmark = normalizers.Replace(MARK, "")
        before = self._backend.normalizer
        self._backend.normalizer = normalizers.Sequence([unmark, before]) if before else unmark
        self._backend.encode_special_tokens = False
        special = [text for text, token_id in parts.added.items() if token_id in parts.special_ids]
        self._all = Protector([*special, *(text for text in parts.added if text.strip())])
        self._special = Protector(special)
        self._added_bytes = {token_id: text.encode("utf-8") for text, token_id in parts.added.items()}
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_directory(cls, path: Path) -> Tokenizer:
        """Read `tokenizer.json` and what lies beside it; raises `TokenizerError` if it is missing or unusable."""
        return cls(read_directory(path))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], path: Path) -> Tokenizer:
        """Build from the `tokenizer.*` keys of a GGUF file; raises `TokenizerError` if they are unusable."""
        return cls(read_gguf(metadata, path))

    @property
    def path(self) -> Path:
        return self._parts.path

    @property
    def vocab_size(self) -> int:
        """Highest id + 1."""
        return self._parts.vocab_size

    @property
    def bos_token_id(self) -> int | None:
        return self._parts.bos_token_id

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every end of text, turn or message that the files name; the vocabulary's own end of text first."""
        return self._parts.eos_token_ids

    @property
    def pad_token_id(self) -> int | None:
        return self._parts.pad_token_id

    @property
    def special_token_ids(self) -> frozenset[int]:
        return self._parts.special_ids

    @property
    def chat_template(self) -> str | None:
        return self._parts.chat_template

    @property
    def bos_token(self) -> str | None:
        return None if self.bos_token_id is None else self.id_to_token(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        return self.id_to_token(self.eos_token_ids[0]) if self.eos_token_ids else None

    @property
    def strips_leading_space(self) -> bool:
        """Whether `decode` takes away one leading space (SentencePiece's dummy prefix)."""
        return self._parts.strip_space

    def token_to_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """The entry as the vocabulary spells it; None for an id that no entry has."""
        check_ids([token_id])
        return self._backend.id_to_token(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token adds to the text; none for an id that no entry has (padding rows of an embedding)."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._token_bytes(token_id)
        return known

    def _token_bytes(self, token_id: int) -> bytes:
        if token_id in self._added_bytes:
            return self._added_bytes[token_id]
        piece = self.id_to_token(token_id)
        if piece is None:
            return b""
        return piece_bytes(piece, self._parts.kind, byte_tokens=self._parts.byte_tokens)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of `text`, the spellings of special tokens in it becoming those tokens, except where protected.

        Args:
            text: any text; the mark U+FDD0 protects (`inference_pio.text.protect`) and is itself not encoded.
            add_special_tokens: put the begin (end) token before (after) it where the files ask for it.

        Raises:
            UsageError: the text holds half a surrogate pair, which no tokenizer can encode, or is longer than
                8,000,000 characters.
            TokenizerError: a regular expression of the vocabulary's own gives up on this text.
        """
        check_text(text)
        own = add_special_tokens and self._parts.affixes is None
        ids: list[int] = guarded(
            self._parts.path,
            "encoding",
            lambda: self._backend.encode(text, add_special_tokens=own).ids,
        )
        if add_special_tokens and self._parts.affixes is not None:
            before, after = self._parts.affixes
            return [*before, *ids, *after]
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of `text` as mere characters: nothing is added, and no spelling in it becomes a special token.

        Raises:
            UsageError: half a surrogate pair, or the mark U+FDD0.
        """
        return self.encode(self._all.protect(text), add_special_tokens=False)

    def protect(self, text: str, where: str = "text", *, special_only: bool = False) -> str:
        """`text` such that `encode` takes it as mere characters.

        special_only leaves the added tokens alone that are not special (`<think>`): for text that a model
        wrote.
        """
        return (self._special if special_only else self._all).protect(text, where)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; bytes that are not UTF-8 become U+FFFD, one for each maximal invalid sequence.

        No spaces are cleaned up before punctuation. Raises `UsageError` for what is not a token id.
        """
        check_ids(token_ids)
        skipped = self._parts.special_ids if skip_special_tokens else frozenset()
        data = b"".join([self.token_bytes(token_id) for token_id in token_ids if token_id not in skipped])
        text = data.decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self._parts.strip_space else text
