"""What one request asks of the sampler; validated once, here, before it reaches the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inference_pio.errors import SamplingError, shown

MAX_N = 16
MAX_STOP_STRINGS = 4
MAX_STOP_LENGTH = 256
MAX_STOP_TOKEN_IDS = 1024
MAX_LOGIT_BIAS = 300
MAX_LOGPROBS = 20


@dataclass(frozen=True)
class SamplingParams:
    """Names and defaults follow vLLM's `SamplingParams`, so that a script moves over unchanged.

    Args:
        n: answers per prompt, 1 to 16.
        temperature: 0 is greedy; at most 2.
        top_p, top_k, min_p, typical_p: keep the most likely tokens only; 1, 0 (or -1), 0 and 1 switch each off.
        repetition_penalty: multiplicative, over prompt and answer (CTRL, Keskar et al. 2019); 1 is off.
        presence_penalty, frequency_penalty: additive, over the answer, −2 to 2 (the OpenAI definition).
        logit_bias: token id to a number in −100…100 added to its logit; −100 bans the token.
        stop: strings that end the answer and are cut off from it.
        stop_token_ids: token ids that end the answer, beside the model's own; at most 1024.
        ignore_eos: go on after the model's own end-of-text tokens.
        max_tokens: tokens to generate at most; None is what the context leaves.
        min_tokens: no end-of-text or stop token before that many tokens.
        logprobs: for each generated token the log-probabilities of this many best tokens and of itself.
        seed: same seed, same prompt, same answer, whatever else runs. None draws a seed.
        skip_special_tokens: leave special tokens out of the text.
        include_stop_str_in_output: keep the stop string in the text.

    Raises:
        SamplingError: a value is of the wrong type or out of range; the message names it and the legal range.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    seed: int | None = None
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    stop_strings: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _INTEGERS.items():
            _integer(name, getattr(self, name), lowest, highest)
        for name, (low, high, open_low) in _NUMBERS.items():
            _number(name, getattr(self, name), low, high, open_low)
        for name in ("ignore_eos", "skip_special_tokens", "include_stop_str_in_output"):
            if not isinstance(getattr(self, name), bool):
                raise SamplingError(f"{name} must be true or false, got {shown(getattr(self, name))}")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise SamplingError(f"min_tokens {self.min_tokens} is more than max_tokens {self.max_tokens}")
        object.__setattr__(self, "stop_strings", _stop_strings(self.stop))
        object.__setattr__(self, "stop_token_ids", _token_ids(self.stop_token_ids))
        _logit_bias(self.logit_bias)

    @property
    def greedy(self) -> bool:
        # Below this the scaled logits overflow float32; the limit of temperature → 0 is greedy.
        return self.temperature < 1e-5

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise `SamplingError` if a token id named here is not in a vocabulary of this size."""
        for name, ids in (("stop_token_ids", self.stop_token_ids), ("logit_bias", self.logit_bias or {})):
            for token_id in ids:
                if token_id >= vocab_size:
                    raise SamplingError(
                        f"{name}: token id {token_id} is not in the vocabulary of {vocab_size}"
                    )


_INTEGERS: Mapping[str, tuple[int, int]] = {
    "n": (1, MAX_N),
    "top_k": (-1, 2**31 - 1),
    "max_tokens": (1, 2**31 - 1),
    "min_tokens": (0, 2**31 - 1),
    "logprobs": (0, MAX_LOGPROBS),
    "seed": (-(2**63), 2**63 - 1),
}
_OPTIONAL = frozenset({"max_tokens", "logprobs", "seed"})
# lowest, highest, and whether the lowest itself is out
_NUMBERS: Mapping[str, tuple[float, float, bool]] = {
    "temperature": (0.0, 2.0, False),
    "top_p": (0.0, 1.0, True),
    "min_p": (0.0, 1.0, False),
    "typical_p": (0.0, 1.0, True),
    "repetition_penalty": (0.0, 10.0, True),
    "presence_penalty": (-2.0, 2.0, False),
    "frequency_penalty": (-2.0, 2.0, False),
}


def _integer(name: str, value: object, low: int, high: int) -> None:
    if value is None and name in _OPTIONAL:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise SamplingError(f"{name} must be a whole number, got {shown(value)}")
    if not low <= value <= high:
        raise SamplingError(f"{name} must be from {low} to {high}, got {shown(value)}")


def _number(name: str, value: object, low: float, high: float, open_low: bool) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or abs(value) == math.inf
        or value != value
    ):
        raise SamplingError(f"{name} must be a number, got {shown(value)}")
    if value > high or value < low or (open_low and value == low):
        bounds = f"above {low:g} and at most {high:g}" if open_low else f"from {low:g} to {high:g}"
        raise SamplingError(f"{name} must be {bounds}, got {shown(value)}")


def _stop_strings(stop: object) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Sequence) else (stop,)
    if len(strings) > MAX_STOP_STRINGS:
        raise SamplingError(f"stop takes at most {MAX_STOP_STRINGS} strings, got {len(strings)}")
    for text in strings:
        if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_LENGTH:
            raise SamplingError(
                f"stop strings must have 1 to {MAX_STOP_LENGTH} characters, got {shown(text)}"
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise SamplingError(f"stop strings: half of a surrogate pair is no text, got {shown(text)}")
    return strings


def _token_ids(ids: object) -> tuple[int, ...]:
    if isinstance(ids, str) or not isinstance(ids, Sequence):
        raise SamplingError(f"stop_token_ids must be a list of token ids, got {shown(ids)}")
    if len(ids) > MAX_STOP_TOKEN_IDS:
        raise SamplingError(f"stop_token_ids takes at most {MAX_STOP_TOKEN_IDS} token ids, got {len(ids)}")
    for token_id in ids:
        _token_id("stop_token_ids", token_id)
    return tuple(ids)


def _token_id(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise SamplingError(f"{name}: {shown(value)} is not a token id")


def _logit_bias(bias: object) -> None:
    if bias is None:
        return
    if not isinstance(bias, Mapping) or len(bias) > MAX_LOGIT_BIAS:
        raise SamplingError(f"logit_bias must be a mapping of at most {MAX_LOGIT_BIAS} token ids to numbers")
    for token_id, value in bias.items():
        _token_id("logit_bias", token_id)
        _number(f"logit_bias[{token_id}]", value, -100.0, 100.0, open_low=False)
