"""A model in a locked process of its own: the same answers, whatever happens to the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ConfigError, GenerationError, PluginError, ResourceError
from inference_pio.security import landlock
from inference_pio.security.confine import Lock
from inference_pio.worker.booting import Cell
from inference_pio.worker.runtime import WorkerRuntime

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

PROMPTS = ["the cat", "a b c d e f", "one", "two words"] * 2
SEEDED = SamplingParams(temperature=1.0, seed=5, max_tokens=60, ignore_eos=True)
LIMITS = ResourceLimits(memory_gb=2.0, cpu_percent=100, gpu_memory_gb=0, network_bandwidth_mbps=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Subject.of("llama", tmp_path_factory.mktemp("worker"), collected={}).checkpoint("grouped")


def loaded(checkpoint: Path, **more: Any) -> LLM:
    options = {"dtype": "float32", "kv_cache_memory_gb": 0.02, "block_size": 16}
    return LLM(str(checkpoint), **{**options, **more})


@pytest.fixture(scope="module")
def here(checkpoint: Path) -> Iterator[LLM]:
    with loaded(checkpoint) as model:
        yield model


@pytest.fixture(scope="module", params=["LOW_TRUST", "MEDIUM_TRUST", "HIGH_TRUST", "MAXIMUM_TRUST"])
def apart(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[LLM]:
    level = SecurityLevel[request.param]
    with loaded(checkpoint, security_level=level, resource_limits=LIMITS) as model:
        yield model


def worker_of(llm: LLM) -> WorkerRuntime:
    assert isinstance(llm._runtime, WorkerRuntime)
    return llm._runtime


def test_the_same_answers_as_in_this_process(here: LLM, apart: LLM) -> None:
    several = SamplingParams(n=2, temperature=0.9, seed=1, max_tokens=12, logprobs=2)
    for params in (SEEDED, SamplingParams(temperature=0, max_tokens=20), several):
        wanted, told = here.generate(PROMPTS, params), apart.generate(PROMPTS, params)
        for one, other in zip(told, wanted, strict=True):
            for answer, expected in zip(one.outputs, other.outputs, strict=True):
                assert (answer.text, answer.token_ids) == (expected.text, expected.token_ids)
                assert answer.finish_reason == expected.finish_reason
                # Which prompts share a step is a matter of time, and dense products round by their number of rows.
                assert answer.cumulative_logprob == pytest.approx(expected.cumulative_logprob, abs=1e-4)
        assert [one.prompt_token_ids for one in told] == [one.prompt_token_ids for one in wanted]


def test_the_same_stream(here: LLM, apart: LLM) -> None:
    wanted, told = list(here.stream("the cat", SEEDED)), list(apart.stream("the cat", SEEDED))
    assert "".join(chunk.text for chunk in told) == "".join(chunk.text for chunk in wanted)
    assert [chunk.token_ids for chunk in told] == [chunk.token_ids for chunk in wanted]
    assert told[-1].metrics is not None
    assert told[-1].finish_reason == "length"


def test_text_is_encoded_and_decoded_there(here: LLM, apart: LLM) -> None:
    ids = apart.get_tokenizer().encode("what is this")
    assert ids == here.get_tokenizer().encode("what is this")
    assert apart.get_tokenizer().decode(ids) == here.get_tokenizer().decode(ids)
    assert apart.max_model_len == here.max_model_len


def test_its_limits_are_verified(apart: LLM) -> None:
    report = worker_of(apart).security_report(worker_of(apart)._level, LIMITS)
    states = {entry.limit: entry.state for entry in report.entries}
    assert "NOT ENFORCED" not in {state for name, state in states.items() if name == "memory_gb"}
    if worker_of(apart)._level in (SecurityLevel.LOW_TRUST, SecurityLevel.MEDIUM_TRUST):
        # At MEDIUM_TRUST it may write to a folder, which is looked at every now and then.
        disk = "VERIFIED" if worker_of(apart)._level is SecurityLevel.LOW_TRUST else "PARTIAL"
        assert {name: states[name] for name in vars(LIMITS)} == {
            **dict.fromkeys(vars(LIMITS), "VERIFIED"),
            "disk_space_gb": disk,
        }


def test_a_worker_has_to_be_held_as_the_canary_was(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Cell.report
    more = Lock("one more", "set")
    monkeypatch.setattr(
        Cell, "report", lambda cell: replace(found := report(cell), locks=(*found.locks, more))
    )
    with pytest.raises(PluginError, match="not locked in as was proved here: one more: missing"):
        loaded(checkpoint, resource_limits=LIMITS)


def test_how_it_computes_is_said_by_the_same_variable(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERENCE_PIO_OPS", "fast")
    with pytest.raises(
        ConfigError, match="run as 'reference' or 'native', not 'fast': check INFERENCE_PIO_OPS"
    ):
        loaded(checkpoint, resource_limits=LIMITS)


def test_three_kills_under_eight_streams(here: LLM, checkpoint: Path) -> None:
    """Every stream equals the one that nothing disturbed."""
    params = SamplingParams(temperature=1.0, seed=9, max_tokens=200, ignore_eos=True)
    wanted = [list(here.stream(prompt, params)) for prompt in PROMPTS]
    with loaded(checkpoint, security_level=SecurityLevel.LOW_TRUST) as llm:
        told: list[list[Any]] = [[] for _ in PROMPTS]

        def read(index: int) -> None:
            told[index] += llm.stream(PROMPTS[index], params)

        readers = [threading.Thread(target=read, args=(index,)) for index in range(len(PROMPTS))]
        for reader in readers:
            reader.start()
        model = worker_of(llm).model
        for kill in range(1, 4):
            before = sum(map(len, told))
            _until(lambda before=before: sum(map(len, told)) > before + 20)
            pid = model.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            _until(lambda kill=kill: model.restarts == kill)
        for reader in readers:
            reader.join(60)
    for index, chunks in enumerate(wanted):
        assert [i for c in told[index] for i in c.token_ids] == [i for c in chunks for i in c.token_ids]
        assert "".join(c.text for c in told[index]) == "".join(c.text for c in chunks)


def test_what_does_not_fit_is_refused_with_the_arithmetic(checkpoint: Path) -> None:
    with pytest.raises(ResourceError, match=r"weights .* = .* GB > 0.20 GB memory_gb"):
        loaded(checkpoint, resource_limits=ResourceLimits(memory_gb=0.2, gpu_memory_gb=0))


def test_a_path_from_here_is_one_from_there(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker stands in another folder."""
    monkeypatch.chdir(checkpoint.parent)
    for level in (SecurityLevel.LOW_TRUST, SecurityLevel.MEDIUM_TRUST):
        with loaded(Path(checkpoint.name), security_level=level) as llm:
            assert llm.generate("x", SEEDED)[0].outputs[0].finish_reason == "length"


def test_a_worker_goes_with_its_model(checkpoint: Path) -> None:
    llm = loaded(checkpoint, security_level=SecurityLevel.MEDIUM_TRUST)
    pid = worker_of(llm).model.pid
    stream = llm.stream("the", SamplingParams(max_tokens=200, ignore_eos=True))
    next(stream)
    llm.close()
    with pytest.raises(GenerationError, match="closed"):
        list(stream)
    assert not os.path.exists(f"/proc/{pid}")
    llm.close()


def _until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about in 20 s")
