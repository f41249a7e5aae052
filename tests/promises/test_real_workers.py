"""An engine in a worker, with a plugin that makes mistakes: who did nothing wrong gets the answers that are right."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.conformance.subject import Subject
from inference_pio.errors import GenerationError, InferencePIOError, NonFiniteLogits
from inference_pio.outputs import RequestOutput
from inference_pio.plugin import registry
from inference_pio.security import landlock
from inference_pio.worker import patience
from inference_pio.worker.model import WorkerModel
from support.faulty_plugin import ABORTS, ARCHITECTURE, NO_NUMBER, installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock"),
]

CANARY = "xkcdcanary"
OPTIONS: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_gb": 0.02, "block_size": 16}
LIMITS = ResourceLimits(memory_gb=2.0, cpu_percent=200, gpu_memory_gb=0)
# Nobody comes upon the bad tokens by chance.
SEEDED = SamplingParams(
    temperature=1.0,
    seed=11,
    max_tokens=24,
    ignore_eos=True,
    logit_bias={ABORTS: -100.0, NO_NUMBER: -100.0},
)
DRAW = random.Random(5)
PROMPTS: list[dict[str, Any]] = [
    {"prompt_token_ids": DRAW.choices(range(20, 90), k=length)} for length in (40, 33, 7, 20, 64, 1, 50)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("inference_pio.models.llama")
    made = Subject.of("llama", tmp_path_factory.mktemp("real"), collected={}).checkpoint("grouped")
    (made / "generation_config.json").write_text(f'{{"_note": "{CANARY}"}}')
    return made


@pytest.fixture(scope="module")
def right(checkpoint: Path) -> Iterator[LLM]:
    """The same model without mistakes, in this process."""
    with LLM(str(checkpoint), enable_prefix_caching=False, **OPTIONS) as model:
        yield model


@pytest.fixture(scope="module")
def llm(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    same = tmp_path_factory.mktemp("same") / "m"
    shutil.copytree(checkpoint, same)
    config = json.loads((same / "config.json").read_text())
    (same / "config.json").write_text(json.dumps({**config, "architectures": [ARCHITECTURE]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed(tmp_path_factory.mktemp("plugins"))))
        patch.setattr(registry, "_defaults", [])
        patch.setenv("API_KEY", CANARY)
        patch.setattr(patience, "MOST_CRASHES", 100)
        patch.setattr(patience, "_LONGEST_WAIT", 0.0)
        options = {"security_level": SecurityLevel.LOW_TRUST, "resource_limits": LIMITS, **OPTIONS}
        with LLM(str(same), plugin="faulty", **options) as model:
            yield model


def worker_of(llm: LLM) -> WorkerModel:
    runtime: Any = llm._runtime
    model: WorkerModel = runtime.model
    return model


def tokens(outputs: list[RequestOutput]) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in outputs]


def with_token(token_id: int) -> dict[str, Any]:
    return {"prompt_token_ids": [30, 31, token_id, token_id]}


def test_the_same_tokens_alone_together_behind_a_prefix_and_in_another_worker(right: LLM, llm: LLM) -> None:
    wanted = tokens([right.generate(prompt, SEEDED)[0] for prompt in PROMPTS])
    assert tokens([llm.generate(prompt, SEEDED)[0] for prompt in PROMPTS]) == wanted
    again = llm.generate(PROMPTS, SEEDED)
    assert tokens(again) == wanted
    assert again[0].metrics is not None
    assert again[0].metrics.num_cached_tokens == 32
    restarts, streams = worker_of(llm).restarts, [llm.stream(prompt, SEEDED) for prompt in PROMPTS]
    told = [list(next(stream).token_ids) for stream in streams]
    pid = worker_of(llm).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for got, stream in zip(told, streams, strict=True):
        got += [token_id for chunk in stream for token_id in chunk.token_ids]
    assert told == wanted
    assert worker_of(llm).restarts == restarts + 1


def test_a_row_that_is_no_number_fails_its_request_alone(right: LLM, llm: LLM) -> None:
    outputs = llm.generate([*PROMPTS[:4], with_token(NO_NUMBER), *PROMPTS[4:]], SEEDED)
    bad = outputs.pop(4).outputs[0]
    assert (bad.finish_reason, bad.token_ids) == ("error", [])
    assert "answer 0, position 4: the model's logits hold NaN or +inf" in str(bad.error)
    assert tokens(outputs) == tokens(right.generate(PROMPTS, SEEDED))
    told: list[Any] = []
    with pytest.raises(NonFiniteLogits, match="answer 0, position 4: the model's logits hold NaN"):
        told += llm.stream(with_token(NO_NUMBER), SEEDED)
    assert [(chunk.finish_reason, chunk.token_ids) for chunk in told] == [("error", [])]


def test_a_request_that_ends_workers_is_found_and_refused(right: LLM, llm: LLM) -> None:
    """Twenty that are good beside it."""
    good = [PROMPTS[number % len(PROMPTS)] for number in range(20)]
    before = worker_of(llm).restarts
    outputs = llm.generate([*good[:9], with_token(ABORTS), *good[9:]], SEEDED)
    bad = outputs.pop(9).outputs[0]
    assert "ended its worker each time, alone at last: ended by SIGABRT" in str(bad.error)
    assert worker_of(llm).restarts == before + 3
    assert tokens(outputs) == tokens(right.generate(good, SEEDED))
    with pytest.raises(GenerationError, match=r"is refused for another (600|599|5\d\d) s"):
        llm.generate(with_token(ABORTS), SEEDED)
    assert worker_of(llm).restarts == before + 3
    assert tokens(llm.generate(PROMPTS[:1], SEEDED)) == tokens(right.generate(PROMPTS[:1], SEEDED))


def test_nothing_that_people_ask_is_logged(
    llm: LLM, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A word in every field of requests that are answered, refused, and cut off by the end of their worker."""
    params: dict[str, Any] = {"stop": [CANARY], "max_tokens": 200, "ignore_eos": True, "seed": 1}
    short, before = SamplingParams(**{**params, "max_tokens": 3}), worker_of(llm).restarts
    with caplog.at_level(logging.INFO):
        llm.generate(CANARY, short)
        llm.chat([{"role": CANARY, "content": CANARY}], short)
        for wrong in ({"logit_bias": {10**6: 1.0}}, {"stop_token_ids": [10**6]}):
            with pytest.raises(InferencePIOError):
                llm.generate(CANARY, SamplingParams(**{**params, **wrong}))
        stream = llm.stream(CANARY, SamplingParams(**params, logit_bias={ABORTS: -100.0, NO_NUMBER: -100.0}))
        next(stream)
        pid = worker_of(llm).pid
        assert pid is not None
        os.kill(pid, signal.SIGABRT)
        list(stream)
        while worker_of(llm).restarts == before:
            time.sleep(0.01)
    told, printed = [record.getMessage() for record in caplog.records], capfd.readouterr()
    assert any("SIGABRT" in line for line in told)
    assert not [line for line in [*told, printed.out, printed.err] if CANARY in line]
    assert all(line.isprintable() and len(line) <= 1000 for line in told)
