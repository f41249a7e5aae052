"""What the readers of tokenizer files hand over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from inference_pio.text.pieces import PieceKind


@dataclass(frozen=True)
class TokenizerParts:
    """What the files say; `inference_pio.text.directory` and `inference_pio.text.gguf_tokenizer` fill it in.

    backend          the library's tokenizer, its added tokens searched in raw text (`normalized` false)
    added            spelling -> id of the entries that are found by spelling: special and user-defined
    special_ids      those of them that carry no text of their own
    affixes          ids to put before and after every text; None: the backend's post-processor does it
    strip_space      the first space of a text was put there by the tokenizer and is taken away by `decode`
    """

    path: Path
    backend: tokenizers.Tokenizer
    kind: PieceKind
    byte_tokens: bool
    strip_space: bool
    added: Mapping[str, int]
    special_ids: frozenset[int]
    vocab_size: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    chat_template: str | None
    affixes: tuple[tuple[int, ...], tuple[int, ...]] | None
