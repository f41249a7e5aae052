"""What a request may ask of the sampler; what it may not is in tests/bad_inputs."""

from __future__ import annotations

import pytest

from inference_pio.errors import SamplingError
from inference_pio.sampling_params import SamplingParams


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
