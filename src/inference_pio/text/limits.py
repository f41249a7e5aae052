"""Sizes beyond which a tokenizer's files and texts are refused: enough for real ones, small enough to fail at once."""

from __future__ import annotations

from collections.abc import Sequence

from inference_pio.errors import UsageError, shown

MAX_TOKEN_BYTES = 64 * 1024
MAX_VOCABULARY = 1 << 22
MAX_FILE_BYTES = 128 << 20
# Characters in one call; beyond about ten million the regular expression engine gives up on runs of spaces.
MAX_TEXT = 8_000_000


def check_text(text: object, where: str = "text") -> None:
    """
    Raises:
        UsageError: it is no text, too long, or holds half a surrogate pair, which no tokenizer can encode.
    """
    if not isinstance(text, str):
        raise UsageError(f"{where} must be text, got {shown(text)}")
    if len(text) > MAX_TEXT:
        raise UsageError(
            f"{where}: {len(text)} characters, more than the {MAX_TEXT} that can be encoded at once"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{where}: character {error.start} is U+{ord(text[error.start]):04X}, half of a surrogate pair; "
            "decode the input as UTF-8 with errors='replace'"
        ) from error


def check_ids(token_ids: Sequence[int]) -> None:
    """Raises `UsageError` for what is not a token id."""
    for token_id in token_ids:
        if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < 2**32:
            raise UsageError(f"{shown(token_id)} is not a token id")
