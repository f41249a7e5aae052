"""The tokenizer of a model in a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inference_pio.text.limits import check_ids, check_text


class WorkerTokenizer:
    """Asks the worker."""

    def __init__(self, ask: Callable[..., Any], vocab_size: int) -> None:
        self._ask, self.vocab_size = ask, vocab_size

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        check_text(text)
        told: list[int] = self._ask("tokenize", text=text, add_special_tokens=add_special_tokens)
        return told

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        check_ids(token_ids)
        told: str = self._ask(
            "detokenize", token_ids=list(token_ids), skip_special_tokens=skip_special_tokens
        )
        return told
