"""What the prefix cache gave and why no more, in words."""

from __future__ import annotations

from dataclasses import replace

from inference_pio.outputs import CacheExplanation
from inference_pio.text.tokenizer import Tokenizer


def in_words(told: CacheExplanation, tokenizer: Tokenizer | None) -> CacheExplanation:
    """The same with its `text`."""
    if told.reason == "off":
        return replace(told, text="cache: off")
    reused = f"cache: {told.num_cached_tokens} of {told.num_prompt_tokens} tokens reused"
    return replace(told, text=f"{reused}{_why(told, tokenizer)}")


def _why(told: CacheExplanation, tokenizer: Tokenizer | None) -> str:
    common, size = told.num_common_tokens, told.block_size
    if told.reason == "whole":
        return f", all that blocks of {size} cover with a token left to compute"
    if told.reason == "new":
        return "; nothing known begins like it"
    if told.reason == "forgotten":
        return f"; what follows was known and made room for {told.other_request} {told.seconds_ago:.0f} s ago"
    if told.reason == "not computed":
        return f"; {told.other_request} begins with {common} of them and had not computed them"
    if told.reason == "no snapshot":
        return f"; {common} are known, and behind more of them no copy of the state was kept"
    blocks = f" (reused are whole blocks of {size})" if common > told.num_cached_tokens else ""
    if told.token_id is None or told.known_token_id is None:
        return f"; nothing known goes on behind token {common}{blocks}"
    was, now = _token(told.known_token_id, tokenizer), _token(told.token_id, tokenizer)
    if told.known_token_id == told.token_id:
        return f"; diverged at token {common + 1}: equal tokens that stand for another image{blocks}"
    return f"; diverged at token {common + 1}: was {was}, is {now}{blocks}"


def _token(token_id: int, tokenizer: Tokenizer | None) -> str:
    if tokenizer is None:
        return str(token_id)
    return repr(tokenizer.token_bytes(token_id).decode("utf-8", "replace"))
