"""Memory of one size per sequence: what is stated is what is allocated, and it starts as it should."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from inference_pio.cache.specs import PagedKV, RecurrentState, StateMemory, state_specs
from inference_pio.errors import PluginError


def test_recurrent_state_in_bytes() -> None:
    """A layer of Qwen3-Coder-Next: 3 inputs of 8,192 channels, 32 matrices of 128 × 128, in float32."""
    spec = RecurrentState(channels=8192, width=4, num_heads=32, key_dim=128, value_dim=128)
    assert (spec.bytes_per_token(), spec.bytes_per_sequence()) == (0, 98_304 + 2_097_152)
    cache = spec.allocate(num_blocks=100, block_size=16, num_slots=5, device=torch.device("cpu"))
    assert (cache.conv.shape, cache.recurrent.shape) == ((5, 3, 8192), (5, 32, 128, 128))
    assert cache.conv.nbytes + cache.recurrent.nbytes == 5 * spec.bytes_per_sequence()
    assert cache.conv.dtype == cache.recurrent.dtype == torch.float32
    assert not cache.conv.any()


def test_copies_and_drafts_in_bytes() -> None:
    """A copy touches two slots' worth of state and no other; drafts take what their spec says."""
    spec = RecurrentState(channels=40, width=3, num_heads=2, key_dim=4, value_dim=8)
    cache = spec.allocate(num_blocks=1, block_size=16, num_slots=4, device=torch.device("cpu"))
    for states in (cache.conv, cache.recurrent):
        states.copy_(torch.arange(4.0).reshape(4, *[1] * (states.dim() - 1)).expand_as(states))
    cache.copy(3, 1)
    for states in (cache.conv, cache.recurrent):
        assert [set(each.flatten().tolist()) for each in states] == [{0.0}, {3.0}, {2.0}, {3.0}]
    assert cache.drafts is None
    cache.reserve(7)
    rows = [getattr(cache.drafts, field.name) for field in fields(cache.drafts)]
    assert sum(row.nbytes for row in rows) == 7 * spec.bytes_per_draft()
    assert isinstance(cache, StateMemory)
    assert state_specs([PagedKV(1, 8, torch.float32), spec]) == [spec]


def test_a_spec_that_says_nothing_of_drafts_is_refused() -> None:
    class Old:
        bytes_per_token = RecurrentState.bytes_per_token
        allocate = RecurrentState.allocate

        def bytes_per_sequence(self) -> int:
            return 12

    with pytest.raises(PluginError, match="Old keeps 12 bytes per sequence but has no bytes_per_draft"):
        state_specs([Old()])
