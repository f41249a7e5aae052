from __future__ import annotations

import pytest
import torch

from inference_pio.cache.planner import plan_cache
from inference_pio.cache.specs import CacheSpec, PagedLatent
from inference_pio.errors import ConfigError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_planned_bytes_are_allocated_bytes(dtype):
    spec = PagedLatent(512, 64, dtype)
    assert isinstance(spec, CacheSpec)
    assert spec.bytes_per_token() == 576 * dtype.itemsize
    assert spec.bytes_per_sequence() == 0
    plan = plan_cache(2**22, [spec, spec], block_size=16, max_num_seqs=3, max_model_len=100)
    caches = [spec.allocate(plan.num_blocks, 16, plan.num_slots, torch.device("cpu")) for _ in range(2)]
    assert plan.bytes_total == sum(cache.rows.untyped_storage().nbytes() for cache in caches)
    assert caches[0].rows.shape == (plan.num_blocks, 16, 576)
    assert caches[0].rows.dtype == dtype
    assert not caches[0].rows.any()


@pytest.mark.parametrize(("dtype", "name"), [(torch.int8, "int8"), (torch.uint8, "int4")])
def test_a_row_is_not_kept_in_whole_numbers(dtype, name):
    with pytest.raises(
        ConfigError, match=f"not kept in {name}: use kv_cache_dtype auto, bfloat16 or float32"
    ):
        PagedLatent(512, 64, dtype)
