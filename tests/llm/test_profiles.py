"""What a profile, a stored result of `tune` and the caller each say about options: who wins, and that it is done."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio import LLM, ResourceLimits
from inference_pio.config import PROFILES, Profile
from inference_pio.engine.config import EngineConfig
from inference_pio.errors import ResourceError, UsageError
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.identity import checkpoint_identity
from inference_pio.loader.store import ModelStore
from inference_pio.runtime import threads as threads_module
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.probe import this_machine
from inference_pio.runtime.tuned import Tuned, keep_tuned
from inference_pio.security.held import held_to

KV = {"kv_cache_memory_gb": 0.01}
BEST: dict[str, int | str] = {
    "threads": 1,
    "max_num_batched_tokens": 64,
    "block_size": 8,
    "speculation": 3,
    "kv_cache_dtype": "float32",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model cache of its own, and a process whose environment names no number of threads."""
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


@contextmanager
def engine(checkpoint: Path, **options: Any) -> Iterator[tuple[LLM, EngineConfig]]:
    with LLM(str(checkpoint), **{"dtype": "float32", **KV, **options}) as llm:
        runtime = llm.plugin.runtime
        assert isinstance(runtime, LocalRuntime)
        assert runtime._loop is not None
        yield llm, runtime._loop._core.config


def store_result(checkpoint: Path, **changes: Any) -> Path:
    """A result as `tune` would have stored it."""
    with open_checkpoint(checkpoint) as opened:
        identity = checkpoint_identity(opened)
    facts: dict[str, Any] = {
        "fingerprint": this_machine().fingerprint,
        "checkpoint": identity,
        "model": "tiny",
        "profile": "latency",
        "dtype": "float32",
        "device": "cpu",
        "quantize": None,
        "quality": "faithful",
        "date": "2026-11-26T12:00:00+00:00",
        "options": BEST,
        "ratio": 1.2,
        "low": 1.1,
        "high": 1.3,
        "confidence": 0.95,
        "work": "1 × 64 + 16 tokens",
    }
    return keep_tuned(ModelStore(), Tuned.now(**facts | changes))


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_changes_the_engine_and_the_configuration(checkpoint: Path, name: str) -> None:
    options = dict(PROFILES[name].engine)
    if options.get("kv_cache_memory_gb"):
        options["kv_cache_memory_gb"] = 0.01  # as the test gives it
    with LLM(str(checkpoint), profile=name, **KV) as llm:
        runtime = llm.plugin.runtime
        assert isinstance(runtime, LocalRuntime)
        assert runtime._loop is not None
        used = dataclasses.asdict(runtime._ready().options)
        assert {field: used[field] for field in options} == options
        config = runtime._loop._core.config
        for field in {"max_num_seqs", "max_num_batched_tokens", "block_size", "speculation"} & set(options):
            assert getattr(config, field) == options[field]
        for field, value in PROFILES[name].config.items():
            assert getattr(llm.plugin.config, field) == value


def test_profiles_differ_in_what_they_do(checkpoint: Path) -> None:
    seen = set()
    for name in ("latency", "throughput", "memory"):
        with engine(checkpoint, profile=name) as (_, config):
            seen.add(
                (config.max_num_seqs, config.max_num_batched_tokens, config.block_size, config.speculation)
            )
    assert len(seen) == 3
    with LLM(str(checkpoint), profile="quality", **KV) as llm:
        assert {weight.dtype for weight in llm.plugin.load_model().parameters()} == {torch.float32}


def test_what_is_named_stands_above_the_profile(checkpoint: Path) -> None:
    named = {"max_num_seqs": 64, "speculation": 15, "enable_prefix_caching": False}  # defaults, but named
    with engine(checkpoint, profile="throughput", **named) as (llm, config):
        assert (config.max_num_seqs, config.speculation, config.enable_prefix_caching) == (64, 15, False)
        assert config.max_num_batched_tokens == 1024
        assert llm.plugin.config.torch_dtype == "float32"


def test_a_profile_of_ones_own(checkpoint: Path) -> None:
    own = Profile("mine", config={"use_prefix_caching": False}, engine={"block_size": 4})
    with engine(checkpoint, profile=own) as (_, config):
        assert (config.block_size, config.enable_prefix_caching) == (4, False)
    with pytest.raises(
        UsageError, match="No profile found that is called 'latencyy'; did you mean 'latency'"
    ):
        LLM(str(checkpoint), profile="latencyy")


def test_a_stored_result_is_used_and_told(
    checkpoint: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    more = before + 1
    monkeypatch.setattr(threads_module, "usable_threads", lambda: more)
    store_result(checkpoint, options={**BEST, "threads": more})
    with caplog.at_level(logging.INFO, "inference_pio"), engine(checkpoint) as (llm, config):
        assert (config.max_num_batched_tokens, config.block_size, config.speculation) == (64, 8, 3)
        assert torch.get_num_threads() == more
        assert llm.settled.tuned is not None
        assert llm.generate("the cat")[0].outputs[0].token_ids
    assert torch.get_num_threads() == before
    assert (
        f"tuned on 2026-11-26: threads {more}, max_num_batched_tokens 64, block_size 8, speculation 3, "
        "kv_cache_dtype float32" in caplog.text
    )


def test_what_a_result_leaves_as_it_is_is_not_told(checkpoint: Path) -> None:
    """Threads that torch takes here by itself, and what the profile says already."""
    usual = {"threads": torch.get_num_threads(), "max_num_batched_tokens": 256, "kv_cache_dtype": "auto"}
    store_result(checkpoint, options={**usual, "speculation": 3})
    with engine(checkpoint, profile="latency") as (llm, _):
        assert llm.settled.note == "tuned on 2026-11-26: speculation 3"
    with engine(checkpoint) as (llm, _):
        assert llm.settled.note == "tuned on 2026-11-26: max_num_batched_tokens 256, speculation 3"
    with engine(checkpoint, profile="latency", speculation=7) as (llm, _):
        assert llm.settled.note == ""


def test_what_is_named_stands_above_what_was_tuned(checkpoint: Path) -> None:
    store_result(checkpoint)
    with engine(checkpoint, block_size=32, speculation=15) as (llm, config):
        assert (config.block_size, config.speculation, config.max_num_batched_tokens) == (32, 15, 64)
        assert "block_size" not in llm.settled.note
    with engine(checkpoint, tuned=False) as (llm, config):
        assert (config.block_size, config.max_num_batched_tokens) == (32, 512)
        assert (llm.settled.tuned, llm.settled.note) == (None, "")
    with engine(checkpoint, **{**BEST, "block_size": 32}) as (llm, _):
        assert (llm.settled.tuned, llm.settled.note) == (None, "")


def test_techniques_that_are_named_keep_their_say(checkpoint: Path) -> None:
    store_result(checkpoint, options={"kv_cache_dtype": "int8", "block_size": 8})
    for named, expected in (({}, torch.int8), ({"disable": ("kv_int8",)}, torch.float32)):
        with engine(checkpoint, **named) as (llm, config):
            runtime = llm.plugin.runtime
            assert isinstance(runtime, LocalRuntime)
            assert (config.block_size, runtime.kv_dtype) == (8, expected)


def test_the_result_for_a_profile_lies_over_it(checkpoint: Path) -> None:
    store_result(checkpoint)
    store_result(
        checkpoint, profile="throughput", options={"block_size": 64}, date="2026-11-27T00:00:00+00:00"
    )
    with engine(checkpoint, profile="latency") as (_, config):
        assert (config.block_size, config.max_num_seqs) == (8, 4)
    with engine(checkpoint, profile="throughput") as (_, config):
        assert (config.block_size, config.max_num_seqs, config.max_num_batched_tokens) == (64, 128, 1024)
    with engine(checkpoint, profile="quality") as (llm, config):
        assert (config.block_size, llm.settled.note) == (32, "")
    with engine(checkpoint) as (_, config):  # whatever it was run for last
        assert config.block_size == 64
    store_result(checkpoint, date="2026-11-28T00:00:00+00:00")
    with engine(checkpoint) as (_, config):
        assert config.block_size == 8


FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"inference_pio": "0.0.9"}, "is of inference-pio 0.0.9, this is"),
    "form": ({"version": 0}, "is of inference-pio"),
    "machine": ({"fingerprint": "0123456789abcdef"}, "measured on another machine"),
    "dtype": ({"dtype": "auto"}, "measured with dtype auto"),
    "quantize": ({"quantize": "int8"}, "quantize int8"),
    "quality": ({"quality": "exact"}, "quality exact"),
    "option": ({"options": {"max_num_seqs": 1}}, "it sets max_num_seqs, which is not tuned"),
    "value": ({"options": {"block_size": 0}}, "block_size must be a whole number from 1 up"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_does_not_fit_is_left_aside_with_the_reason(checkpoint: Path, what: str) -> None:
    changes, reason = FOREIGN[what]
    store_result(checkpoint, **changes)
    with engine(checkpoint) as (llm, config):
        assert (config.block_size, config.max_num_batched_tokens) == (32, 512)
        assert reason in llm.settled.note
        assert llm.settled.note.startswith("not tuned: ")
        assert llm.settled.note.endswith("inference-pio tune measures it")


def test_another_checkpoints_result_under_this_ones_name(checkpoint: Path) -> None:
    file = store_result(checkpoint)
    stored = json.loads(file.read_text())
    stored[0]["checkpoint"] = "0" * 64
    file.write_text(json.dumps(stored))
    with engine(checkpoint) as (llm, config):
        assert config.block_size == 32
        assert "with another checkpoint" in llm.settled.note


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '[{"version": 1}]'])
def test_a_broken_file_is_left_aside_and_replaced(checkpoint: Path, text: str) -> None:
    file = store_result(checkpoint)
    file.write_text(text)
    with engine(checkpoint) as (llm, config):
        assert config.block_size == 32
        assert str(file) in llm.settled.note
    store_result(checkpoint)
    assert json.loads(file.read_text())[0]["options"] == BEST


def test_threads_are_checked_and_limited(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, idle: Callable[[LLM], bool]
) -> None:
    monkeypatch.setattr(threads_module, "usable_threads", lambda: 4)
    with pytest.raises(ResourceError, match="threads 5 is more than the 4 that this process can keep busy"):
        LLM(str(checkpoint), threads=5)
    limits = ResourceLimits(cpu_percent=200, memory_gb=4)
    with (
        held_to(limits),
        pytest.raises(ResourceError, match="threads 3 is more than the 2 that cpu_percent 200"),
    ):
        LLM(str(checkpoint), threads=3, resource_limits=limits)
    before = torch.get_num_threads()
    with held_to(limits), engine(checkpoint, threads=2, resource_limits=limits) as (llm, _):
        assert llm.plugin.get_compute_stats()["compute_threads"] == 2
        assert idle(llm)
    store_result(checkpoint, options={"threads": 4})
    with held_to(limits), engine(checkpoint, resource_limits=limits) as (llm, _):
        assert llm.settled.options["threads"] == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so the caller has named a number
    with engine(checkpoint) as (llm, _):
        assert "threads" not in llm.settled.options
    assert torch.get_num_threads() == before
