"""A model that its limit refused is made to fit, and one that runs is given less, in workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio import (
    LLM,
    ResourceLimits,
    SamplingParams,
    SecurityLevel,
    create_plugin,
    initialize_plugin,
    manage_resources,
)
from inference_pio.conformance.subject import Subject
from inference_pio.errors import PluginError, ResourceError, UsageError
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.security import landlock
from inference_pio.worker.runtime import WorkerRuntime

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

USUAL = {"block_size": 16}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Subject.of("llama", tmp_path_factory.mktemp("fitting"), collected={}).checkpoint("grouped")


@pytest.fixture(scope="module")
def here(checkpoint: Path) -> tuple[int, int, str]:
    """Bytes that the model needs as it is asked for, and made to fit; a text that it writes."""
    with LLM(str(checkpoint), dtype="float32", **USUAL) as llm:
        text = llm.generate("the cat", SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))[0]
        least = llm.plugin.runtime.plan.least
    small = {"max_num_seqs": 1, "max_num_batched_tokens": 128, "speculation": 0, **USUAL}
    with LLM(str(checkpoint), dtype="float32", **small) as llm:
        return least, llm.plugin.runtime.plan.least, text.outputs[0].text


@pytest.fixture
def plugin(checkpoint: Path) -> Iterator[ModelPlugin]:
    config = create_plugin("llama").config_class(
        model_path=str(checkpoint), torch_dtype="float32", do_sample=False
    )
    made = create_plugin("llama", config=config)
    yield made
    made.cleanup()


def started(plugin: ModelPlugin, memory_bytes: int, **more: Any) -> bool:
    limits = ResourceLimits(memory_gb=memory_bytes / 1e9, cpu_percent=100, gpu_memory_gb=0)
    return initialize_plugin(
        plugin,
        config=plugin.config,
        security_level=SecurityLevel.LOW_TRUST,
        resource_limits=limits,
        **USUAL,
        **more,
    )


def pid_of(plugin: ModelPlugin) -> int | None:
    assert isinstance(plugin.runtime, WorkerRuntime)
    return plugin.runtime.model.pid


def own_bytes(plugin: ModelPlugin) -> int:
    lines = Path(f"/proc/{pid_of(plugin)}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def test_a_refused_model_is_made_to_fit(plugin: ModelPlugin, here: tuple[int, int, str]) -> None:
    least, small, text = here
    limit = (least + small) // 2
    assert not started(plugin, limit)
    assert 'manage_resources(plugin, "optimize")' in str(plugin.last_error)
    told = manage_resources(plugin, "optimize")
    assert told["fits"]
    assert plugin.last_error is None
    assert told["applied"][0]["bytes_before"] == told["before"]["total"] == least
    assert told["applied"][-1]["bytes_after"] <= told["after"]["total"] <= limit
    plugin.load_model()
    assert plugin.generate_text("the cat", max_new_tokens=8, ignore_eos=True) == text
    assert own_bytes(plugin) <= limit
    assert manage_resources(plugin, "monitor")["limits"]["limits"]["memory_gb"]["value"] == limit / 1e9


def test_what_nothing_makes_fit_says_how_much_would(plugin: ModelPlugin) -> None:
    assert not started(plugin, 10**8)
    with pytest.raises(UsageError, match="takes no speed"):
        manage_resources(plugin, "optimize", speed=1)
    for _ in range(2):
        with pytest.raises(ResourceError, match=r"needs 0\.\d\d GB at least"):
            manage_resources(plugin, "optimize")


def test_a_model_that_runs_is_given_less(plugin: ModelPlugin, here: tuple[int, int, str]) -> None:
    least, small, text = here
    assert started(plugin, 2 * least)
    first = pid_of(plugin)
    assert manage_resources(plugin, "optimize")["fits"]
    with pytest.raises(UsageError, match="more than the limit"):
        manage_resources(plugin, "optimize", memory_gb=4 * least / 1e9)
    with pytest.raises(ResourceError, match="GB at least"):
        manage_resources(plugin, "optimize", memory_gb=small / 2e9)
    stream = plugin.runtime.stream("the cat", SamplingParams(max_tokens=200, ignore_eos=True))
    next(stream)
    with pytest.raises(PluginError, match="is busy with 1 requests"):
        manage_resources(plugin, "optimize", memory_gb=small / 1e9)
    assert sum(len(chunk.token_ids) for chunk in stream) > 0
    assert pid_of(plugin) == first
    told = manage_resources(plugin, "optimize", memory_gb=small / 1e9)
    assert told["after"]["budget"] == round(small / 1e9 * 1e9)
    assert pid_of(plugin) != first
    assert plugin.generate_text("the cat", max_new_tokens=8, ignore_eos=True) == text
    assert own_bytes(plugin) <= small
    assert manage_resources(plugin, "monitor")["limits"]["limits"]["memory_gb"]["value"] == small / 1e9


def test_the_same_with_llm(checkpoint: Path, here: tuple[int, int, str]) -> None:
    least, small, text = here
    limits = ResourceLimits(memory_gb=(least + small) / 2e9, gpu_memory_gb=0)
    with pytest.raises(ResourceError, match=r"LLM\(fit=True\), --fit"):
        LLM(str(checkpoint), dtype="float32", resource_limits=limits, **USUAL)
    with LLM(str(checkpoint), dtype="float32", resource_limits=limits, fit=True, **USUAL) as llm:
        assert any(note.startswith("made to fit: ") for note in llm.notes)
        params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
        assert llm.generate("the cat", params)[0].outputs[0].text == text
    assert RuntimeOptions().fit is False
