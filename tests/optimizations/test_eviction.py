"""When tokens may be evicted, and what that does to the memory plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_pio.conformance.subject import Subject
from inference_pio.errors import ConfigError, ResourceError, UsageError
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.loading import engine_config
from inference_pio.runtime.plan_only import plan_only
from inference_pio.runtime.prepared import Prepared


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    subject = Subject.of("llama", tmp_path_factory.mktemp("eviction"), collected={})
    return Path(subject.checkpoint("grouped"))


def prepared(path: Path, **options: Any) -> Prepared:
    usual = {"block_size": 4, "max_num_batched_tokens": 8, "max_num_seqs": 4, "speculation": 0}
    return plan_only(str(path), "float32", "cpu", RuntimeOptions(**{**usual, **options}), None, None).prepared


def test_more_sequences_take_less_memory(llama: Path) -> None:
    whole, less = prepared(llama), prepared(llama, kv_cache_budget=240)
    assert whole.plan.kv_tokens == 4 * 256
    assert less.plan.kv_tokens == 256 + 3 * 240
    assert engine_config(whole).eviction is None
    policy = engine_config(less).eviction
    assert policy is not None
    assert policy.budget == 240


def test_a_sequence_may_be_longer_than_the_cache(llama: Path) -> None:
    tokens = 246
    sizes = {"max_model_len": 256, "kv_cache_memory_gb": tokens * 512 / 1e9}
    with pytest.raises(ResourceError, match="one sequence of 256 tokens does not fit the cache: 64 blocks"):
        engine_config(prepared(llama, **sizes))
    config = engine_config(prepared(llama, **sizes, kv_cache_budget=236))
    assert config.max_model_len == 256
    assert config.num_blocks == tokens // 4
    with pytest.raises(ResourceError, match="one sequence of 248 tokens does not fit the cache: 62 blocks"):
        engine_config(prepared(llama, **sizes, kv_cache_budget=244))


def test_a_budget_is_asked_for_in_one_way_and_refused_with_the_sum(llama: Path) -> None:
    states = {one.technique.name: one.standing for one in prepared(llama).techniques}
    assert "no kv_cache_budget" in states["kv_eviction"].reason
    with pytest.raises(ConfigError, match="enable kv_eviction: .* no kv_cache_budget says how many tokens"):
        prepared(llama, enable=("kv_eviction",))
    sums = (
        r"32 first tokens \+ 128 last ones, in whole blocks of 4, \+ 2 blocks \+ room for 64 = 232; give it"
    )
    with pytest.raises(ConfigError, match=rf"kv_cache_budget 200: .* too little: {sums}"):
        prepared(llama, kv_cache_budget=200)
    with pytest.raises(ConfigError, match="kv_cache_budget 240: .* switched off by name"):
        prepared(llama, kv_cache_budget=240, disable=("kv_eviction",))
    with pytest.raises(UsageError, match="kv_cache_budget must be a whole number from 1 up, got 0.5"):
        RuntimeOptions(kv_cache_budget=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["glm4_moe_lite", "qwen3_next"])
def test_latents_and_states_stay(name: str, tmp_path: Path) -> None:
    pytest.importorskip(f"inference_pio.models.{name}")
    subject = Subject.of(name, tmp_path, collected={})
    with pytest.raises(
        ConfigError, match="kv_cache_budget 1024: KV cache eviction by attention cannot be used here: "
    ):
        prepared(Path(subject.checkpoint(subject.case.typical)), kv_cache_budget=1024)
