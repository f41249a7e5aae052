"""What a request leaves behind: nothing that waits for a collection of garbage, and no memory that Python keeps."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from inference_pio.engine.sequence import Request, Sequence
from inference_pio.engine.updates import SequenceUpdate, joined
from inference_pio.sampling_params import SamplingParams


@pytest.fixture(autouse=True)
def _without_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _left() -> int:
    return sum(type(each) in (Request, Sequence) for each in gc.get_objects())


def test_ended_requests_are_gone_at_once(fake):
    engine = fake.make_engine()
    before = _left()
    for number in range(5):
        engine.add_request(f"answered {number}", [1, 2, 3, number], SamplingParams(n=2, seed=7, max_tokens=6))
    engine.add_request("given up", [4, 5], SamplingParams(n=3, max_tokens=40, ignore_eos=True))
    engine.add_request("never begun", [4, 5], SamplingParams(n=2))
    engine.abort("never begun")
    engine.step()
    engine.step()
    engine.abort("given up")
    assert _left() > before
    fake.run(engine)
    assert _left() == before


def test_joined_tokens_are_given_back():
    """CPython keeps two thousand tuples of each length; what is cut to its length joins them each time."""
    parts = [SequenceUpdate("request", 0, (token_id,), 0) for token_id in range(7)]
    assert joined(parts)[0].token_ids == tuple(range(7))
    before = sys.getallocatedblocks()
    for _ in range(1500):
        joined(parts)
    assert sys.getallocatedblocks() < before + 300
