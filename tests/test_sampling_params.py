"""Every sampling value is checked once, with a message that names it and its range."""

from __future__ import annotations

import math
from typing import Any

import pytest

from inference_pio.errors import SamplingError
from inference_pio.sampling_params import SamplingParams

WRONG: list[tuple[str, Any]] = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", "1"),
    ("temperature", True),
    ("temperature", math.nan),
    ("top_p", 0),
    ("top_p", 1.0001),
    ("top_p", -1),
    ("min_p", 2),
    ("typical_p", 0),
    ("top_k", -2),
    ("top_k", 1.5),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 2**31),
    ("max_tokens", "5"),
    ("max_tokens", 1.0),
    ("min_tokens", -1),
    ("n", 0),
    ("n", 17),
    ("n", True),
    ("logprobs", 21),
    ("logprobs", -1),
    ("seed", 2**63),
    ("seed", 1.5),
    ("seed", "x"),
    ("presence_penalty", 2.01),
    ("frequency_penalty", -2.01),
    ("repetition_penalty", 0),
    ("repetition_penalty", math.inf),
    ("logit_bias", {-1: 1}),
    ("logit_bias", {"a": 1}),
    ("logit_bias", {5: 101}),
    ("logit_bias", {5: math.nan}),
    ("logit_bias", dict.fromkeys(range(301), 1)),
    ("stop", ""),
    ("stop", [""]),
    ("stop", ["a"] * 5),
    ("stop", "x" * 257),
    ("stop", 7),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", [1.5]),
    ("stop_token_ids", "12"),
    ("ignore_eos", "yes"),
    ("skip_special_tokens", 1),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value!r:.20}" for name, value in WRONG])
def test_wrong_values_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(SamplingError, match=name):
        SamplingParams(**{name: value})


def test_min_tokens_above_max_tokens_names_both() -> None:
    with pytest.raises(SamplingError, match=r"min_tokens 9 .* max_tokens 8"):
        SamplingParams(min_tokens=9, max_tokens=8)


def test_edges_are_allowed() -> None:
    params = SamplingParams(
        temperature=1e-300, top_p=1.0, top_k=-1, n=16, logprobs=20, seed=-(2**63), stop="END"
    )
    assert params.greedy
    assert params.stop_strings == ("END",)
    assert not SamplingParams(temperature=0.01).greedy
    assert SamplingParams(temperature=-0.0).greedy


def test_token_ids_are_held_against_the_vocabulary() -> None:
    SamplingParams(stop_token_ids=[9], logit_bias={9: 1}).check_vocabulary(10)
    with pytest.raises(SamplingError, match="stop_token_ids: token id 10 is not in the vocabulary of 10"):
        SamplingParams(stop_token_ids=[10]).check_vocabulary(10)
    with pytest.raises(SamplingError, match="logit_bias: token id 11"):
        SamplingParams(logit_bias={11: 1}).check_vocabulary(10)
