"""Measured figures, and the plan made before a byte is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch

from inference_pio import LLM, ResourceLimits, SamplingParams
from inference_pio.errors import ResourceError

_GROWTH = """
import json, sys
import psutil
import torch
from inference_pio import LLM, SamplingParams

options = json.loads(sys.argv[2])
with LLM(sys.argv[1], **options) as llm:
    params = SamplingParams(temperature=0.0, max_tokens=32, ignore_eos=True)
    prompts = [{"prompt_token_ids": [3 + n % 200] * length} for n, length in enumerate([200, 90, 40, 7] * 4)]
    llm.generate(prompts, params)
    stats = llm.plugin.get_memory_stats()
    print(json.dumps({"plan": llm.plugin.runtime.plan.as_dict(), "peak": stats["process_peak_bytes"]}))
"""


def test_bytes_of_weights_and_cache(checkpoint: Path, llm: LLM, idle: Callable[[LLM], bool]) -> None:
    stored = safetensors.torch.load_file(checkpoint / "model.safetensors")
    total = sum(tensor.nbytes for tensor in stored.values())
    memory = llm.plugin.get_memory_stats()
    assert memory["weights_bytes"] == total
    # 2 layers of keys and values, 2 KV heads of 16 numbers of 4 bytes.
    per_token = 2 * 2 * 2 * 16 * 4
    # No more than 64 sequences of 256 tokens can ever use, though 20 MB were granted.
    assert memory["kv_cache_reserved_bytes"] == 64 * 256 * per_token == llm.plugin.runtime.plan.kv_cache
    assert memory["kv_cache_used_bytes"] == 0
    assert memory["process_peak_bytes"] >= memory["process_bytes"] > total
    assert llm.plugin.get_disk_stats()["model_bytes"] == total
    stream = llm.stream("x" * 30, SamplingParams(max_tokens=200, ignore_eos=True, seed=1))
    next(stream)
    used = llm.plugin.get_memory_stats()["kv_cache_used_bytes"]
    stream.close()
    assert 2 * 16 * per_token <= used <= 16 * 16 * per_token
    assert used % (16 * per_token) == 0
    assert idle(llm)


def test_tokens_are_counted(llm: LLM) -> None:
    before = llm.plugin.get_compute_stats()
    prompts = [{"prompt_token_ids": [5] * 9}, {"prompt_token_ids": [6] * 4}]
    llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=7, ignore_eos=True))
    after = llm.plugin.get_compute_stats()
    assert after["generation_tokens"] - before["generation_tokens"] == 14
    assert after["prompt_tokens"] - before["prompt_tokens"] == 13
    assert 7 <= after["steps"] - before["steps"] <= 14
    # The two clocks of the system tick differently.
    assert after["cpu_user_seconds"] + after["cpu_system_seconds"] == pytest.approx(
        time.process_time(), abs=0.2
    )


def test_a_limit_that_is_too_small_is_refused_with_the_arithmetic(checkpoint: Path) -> None:
    with pytest.raises(ResourceError) as refused:
        LLM(str(checkpoint), dtype="float32", resource_limits=ResourceLimits(memory_gb=0.2))
    message = str(refused.value)
    numbers = [float(word) for word in message.replace(";", " ").split() if word.replace(".", "").isdigit()]
    weights, cache, activations, logits, runtime, total, limit = numbers[:7]
    assert weights + cache + activations + logits + runtime == pytest.approx(total, abs=0.03)
    assert total > limit == 0.2
    assert "GB memory_gb" in message
    assert "raise the limit or take a smaller model" in message


def test_what_is_offered_fits(checkpoint: Path, llm: LLM) -> None:
    """A cache that was asked for is too large for the limit; with the one that the refusal offers, the model loads."""
    plan = llm.plugin.runtime.plan
    limit = ResourceLimits(memory_gb=(plan.total - plan.kv_cache + 4_000_000) / 1e9)
    with pytest.raises(ResourceError, match=r"kv_cache_memory_gb 0\.00[34] it fits") as refused:
        LLM(str(checkpoint), dtype="float32", resource_limits=limit, kv_cache_memory_gb=0.008)
    offer = float(str(refused.value).split("kv_cache_memory_gb ")[1].split()[0])
    with LLM(str(checkpoint), dtype="float32", resource_limits=limit, kv_cache_memory_gb=offer) as small:
        assert small.generate("the", SamplingParams(max_tokens=2, ignore_eos=True))


def _measured(model: str, **options: object) -> tuple[dict[str, int], int]:
    command = [sys.executable, "-c", _GROWTH, model, json.dumps(options)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    found = json.loads(printed)
    return found["plan"], found["peak"]


@pytest.mark.slow
def test_the_plan_holds_for_a_tiny_model(checkpoint: Path) -> None:
    plan, peak = _measured(str(checkpoint), dtype="float32", kv_cache_memory_gb=0.02)
    assert peak <= plan["total"] * 1.05, (peak, plan)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_plan_holds_for_smollm2(smollm2_path: Path, dtype: str) -> None:
    """The whole process at its peak stays within the plan, and the plan is not vastly more than that."""
    plan, peak = _measured(str(smollm2_path), dtype=dtype, max_model_len=512, kv_cache_memory_gb=0.2)
    assert plan["total"] * 0.5 <= peak <= plan["total"] * 1.05, (peak, plan)
