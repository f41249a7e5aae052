"""Whether a request can be served at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference_pio.errors import ContextLengthError, InferencePIOError, SamplingError
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
    prompt = np.asarray(prompt_token_ids)
    if prompt.size == 0:
        raise SamplingError("the prompt has no tokens: give at least one")
    if prompt.ndim != 1 or prompt.dtype.kind not in "iu":
        raise SamplingError("the prompt must be a flat list of token ids (whole numbers)")
    if len(prompt) >= max_model_len:
        raise ContextLengthError(
            f"the prompt has {len(prompt)} tokens, and at most {max_model_len - 1} fit beside one token of answer: "
            f"max_model_len is {max_model_len}"
        )
    low, high = int(prompt.min()), int(prompt.max())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise SamplingError(f"prompt: token id {wrong} is not in the vocabulary of {vocab_size}")
    params.check_vocabulary(vocab_size)
    token_ids: list[int] = prompt.tolist()
    return token_ids
