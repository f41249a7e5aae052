"""Memory of one size per sequence: what is stated is what is allocated, and it starts as it should."""

from __future__ import annotations

import torch

from inference_pio.cache.specs import RecurrentState


def test_recurrent_state_in_bytes() -> None:
    """A layer of Qwen3-Coder-Next: 3 inputs of 8,192 channels, 32 matrices of 128 × 128, in float32."""
    spec = RecurrentState(channels=8192, width=4, num_heads=32, key_dim=128, value_dim=128)
    assert (spec.bytes_per_token(), spec.bytes_per_sequence()) == (0, 98_304 + 2_097_152)
    cache = spec.allocate(num_blocks=100, block_size=16, num_slots=5, device=torch.device("cpu"))
    assert (cache.conv.shape, cache.recurrent.shape) == ((5, 3, 8192), (5, 32, 128, 128))
    assert cache.conv.nbytes + cache.recurrent.nbytes == 5 * spec.bytes_per_sequence()
    assert cache.conv.dtype == cache.recurrent.dtype == torch.float32
    assert not cache.conv.any()
