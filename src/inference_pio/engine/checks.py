"""Whether a request can be served at all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from operator import index
from typing import SupportsIndex

from inference_pio.errors import ContextLengthError, InferencePIOError, SamplingError, shown
from inference_pio.sampling_params import SamplingParams

# What tensor code raises: it fails the requests of one step. Anything else is a defect of the program and ends it.
MODEL_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    MemoryError,
    InferencePIOError,
)


def ensure(condition: bool, complaint: str) -> None:
    """For what can only be false if the engine is wrong."""
    if not condition:
        raise AssertionError(complaint)


def check_request(
    prompt_token_ids: Sequence[int], params: SamplingParams, *, vocab_size: int, max_model_len: int
) -> list[int]:
    """The prompt as a list of token ids.

    Raises:
        SamplingError: the prompt is empty, or a token id in it or in `params` is not in the vocabulary.
        ContextLengthError: prompt and one token do not fit `max_model_len`.
    """
    prompt = list(prompt_token_ids)
    if not prompt:
        raise SamplingError("the prompt has no tokens: give at least one")
    if {*map(type, prompt)} != {int}:
        prompt = [_whole(value) for value in prompt]
    check_length(len(prompt), max_model_len)
    low, high = min(prompt), max(prompt)
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise SamplingError(f"prompt: token id {shown(wrong)} is not in the vocabulary of {vocab_size}")
    params.check_vocabulary(vocab_size)
    left = max_model_len - len(prompt)
    if params.min_tokens > left:
        raise SamplingError(
            f"min_tokens {params.min_tokens} is more than the {left} tokens that the context leaves: "
            f"max_model_len is {max_model_len}"
        )
    return prompt


def check_length(tokens: int, max_model_len: int) -> None:
    """Raises `ContextLengthError` where a prompt of so many tokens leaves no room for one more."""
    if tokens >= max_model_len:
        raise ContextLengthError(
            f"the prompt has {tokens} tokens, and at most {max_model_len - 1} fit beside one token of answer: "
            f"max_model_len is {max_model_len}"
        )


def _whole(value: object) -> int:
    """A number of numpy's or torch's is one, True is none."""
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        with suppress(TypeError):
            return index(value)
    raise SamplingError(
        f"the prompt must be a flat list of token ids (whole numbers), and holds {shown(value)}"
    )
