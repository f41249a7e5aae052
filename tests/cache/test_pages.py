from __future__ import annotations

import gc
import sys

import pytest
import torch

from inference_pio.cache.pages import claim_pages
from inference_pio.cache.specs import PagedKV
from inference_pio.metrics.memory import process_bytes

_KIND = PagedKV(num_kv_heads=4, head_dim=64, dtype=torch.bfloat16)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems give pages when they are written"
)
def test_pages_are_there_before_they_are_written_and_values_stay() -> None:
    cache = _KIND.allocate(num_blocks=8192, block_size=16, num_slots=0, device=torch.device("cpu"))
    cache.k[5, 1, 3, 7] = 3.5
    gc.collect()
    before = process_bytes()
    pieces = sum(1 for _ in claim_pages(cache.k))
    if pieces == 0:
        pytest.skip("this system is older than MADV_POPULATE_WRITE")
    assert process_bytes() - before > 0.8 * cache.k.nbytes
    assert pieces == -(-cache.k.nbytes // (4 * 2**20)), "a piece must not take long: requests wait for it"
    assert cache.k[5, 1, 3, 7] == 3.5
    assert cache.k.count_nonzero() == 1


def test_a_tensor_smaller_than_a_page_is_left_alone() -> None:
    assert list(claim_pages(torch.zeros(8))) == []
