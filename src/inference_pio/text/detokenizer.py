"""Text from tokens as they come, never half a character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from inference_pio.text.tokenizer import Tokenizer

# A character has at most 4 bytes in UTF-8, so no more of what came before can matter to what comes next.
_LONGEST_CHARACTER = 4


class IncrementalDetokenizer:
    """The text of a growing list of token ids.

    What `push` and `finish` return, joined, is what `tokenizer.decode` says about all ids, the prompt's
    included, less what it says about the prompt. Bytes wait until their character is complete, and become
    U+FFFD only once it cannot be completed any more. The work for a token is proportional to its own bytes.

    Args:
        prompt_token_ids: what the ids pushed later continue; its text is not repeated.
        kept: special tokens that are text all the same.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
        kept: frozenset[int] = frozenset(),
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_token_ids - kept if skip_special_tokens else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        tail = self._tail(prompt_token_ids)
        self._decoder.decode(tail)
        self._at_start = tokenizer.strips_leading_space and not tail

    def _tail(self, token_ids: Sequence[int]) -> bytes:
        tail = b""
        for token_id in reversed(token_ids):
            if token_id not in self._skipped:
                tail = self._tokenizer.token_bytes(token_id) + tail
            if len(tail) >= _LONGEST_CHARACTER:
                break
        return tail

    def push(self, token_ids: Sequence[int]) -> str:
        """The characters that these ids complete."""
        data = b"".join(
            [self._tokenizer.token_bytes(token_id) for token_id in token_ids if token_id not in self._skipped]
        )
        return self._without_prefix(self._decoder.decode(data))

    def finish(self) -> str:
        """U+FFFD if a character is left incomplete; nothing may be pushed afterwards."""
        return self._without_prefix(self._decoder.decode(b"", final=True))

    def _without_prefix(self, text: str) -> str:
        if not self._at_start or not text:
            return text
        self._at_start = False
        return text.removeprefix(" ")
