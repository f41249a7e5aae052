from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from inference_pio.cache.planner import plan_cache
from inference_pio.cache.specs import PagedKV
from inference_pio.errors import ResourceError


@dataclass(frozen=True)
class State:
    size: int

    def bytes_per_token(self):
        return 0

    def bytes_per_sequence(self):
        return self.size

    def allocate(self, num_blocks, block_size, num_slots, device):  # noqa: ARG002
        return torch.zeros(num_slots, self.size, dtype=torch.uint8, device=device)


@given(
    budget=st.integers(0, 2**21),
    heads=st.integers(1, 4),
    layers=st.integers(0, 3),
    dtype=st.sampled_from([torch.bfloat16, torch.int8, torch.uint8]),
    state=st.integers(0, 5000),
    block_size=st.integers(1, 32),
    max_num_seqs=st.integers(1, 9),
    max_model_len=st.integers(2, 300),
)
def test_planned_bytes_are_allocated_bytes(
    budget, heads, layers, dtype, state, block_size, max_num_seqs, max_model_len
):
    specs = [PagedKV(heads, 8, dtype)] * layers + [State(state)]
    sizes = {"block_size": block_size, "max_num_seqs": max_num_seqs, "max_model_len": max_model_len}
    try:
        plan = plan_cache(budget, specs, **sizes)
    except ResourceError:
        blocks = -(-max_model_len // block_size)
        per_head = {torch.bfloat16: 8 * 2, torch.int8: 8 + 2, torch.uint8: 8 // 2 + 2}[dtype]
        assert blocks * block_size * 2 * heads * per_head * layers + state > budget
        return
    caches = [
        spec.allocate(plan.num_blocks, block_size, plan.num_slots, torch.device("cpu")) for spec in specs
    ]
    allocated = caches[-1].nbytes + sum(
        tensor.nbytes
        for cache in caches[:-1]
        for tensor in (cache.k, cache.v, cache.scales)
        if tensor is not None
    )
    assert plan.bytes_total == allocated <= budget
    assert plan.num_blocks * block_size >= max_model_len
    assert 1 <= plan.num_slots <= max_num_seqs


@given(budget=st.integers(1, 100_000), max_model_len=st.integers(2, 4000))
def test_the_length_that_an_error_recommends_fits_and_the_next_block_does_not(budget, max_model_len):
    sizes = {"block_size": 16, "max_num_seqs": 4}
    specs = [PagedKV(1, 4, torch.float32), State(100)]
    with pytest.raises(ResourceError) as caught:
        plan_cache(budget, specs, max_model_len=max_model_len + 4000, **sizes)
    message = str(caught.value)
    assume("fits" in message)
    fitting = int(message.rsplit("max_model_len ", 1)[1].split()[0])
    plan_cache(budget, specs, max_model_len=fitting, **sizes)
    with pytest.raises(ResourceError):
        plan_cache(budget, specs, max_model_len=fitting + 1, **sizes)


def test_the_error_shows_the_arithmetic():
    spec = PagedKV(num_kv_heads=4, head_dim=64, dtype=torch.float32)  # 2 KiB per token
    with pytest.raises(ResourceError) as caught:
        plan_cache(1 << 20, [spec], block_size=32, max_num_seqs=8, max_model_len=1024)
    assert str(caught.value) == (
        "one sequence of 1024 tokens does not fit the cache: 32 blocks × 64.0 KiB + 0 B of state = 2.0 MiB > "
        "1.0 MiB; max_model_len 512 fits"
    )
