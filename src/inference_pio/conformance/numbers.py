"""How close is equal, and inputs that are the same everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

# Float32 sums in another order; a wrong formula is larger by orders of magnitude.
TOLERANCE = 1e-4


def token_ids(count: int, vocab_size: int, seed: int = 0) -> list[int]:
    """Random ids below `vocab_size`."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + count)
    return torch.randint(vocab_size, (count,), generator=generator).tolist()


def assert_close(found: Tensor, expected: Tensor, what: str) -> None:
    """max |found − expected| / max |expected| is at most `TOLERANCE`; NaN fails."""
    assert found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    assert difference <= TOLERANCE, f"{what}: differs by {difference:.2e} relative, at most {TOLERANCE:.0e}"
