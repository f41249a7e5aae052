"""On a CUDA device the torch reference operations run, and give what the CPU gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference_pio import LLM, SamplingParams
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ResourceError

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
PROMPTS = ["Once upon a time", "The capital of France is", "def main():"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Subject.of("llama", tmp_path_factory.mktemp("gpu"), collected={}).checkpoint("grouped")


def answers(path: Path, device: str, **options: object) -> list[list[int]]:
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    with LLM(str(path), device=device, kv_cache_memory_gb=0.02, **options) as llm:  # type: ignore[arg-type]
        return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params)]


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=gpu), pytest.param("cuda:0", marks=gpu)])
def test_tokens_equal_the_cpus_in_float32(checkpoint: Path, device: str) -> None:
    assert answers(checkpoint, device, dtype="float32") == answers(checkpoint, "cpu", dtype="float32")


@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=gpu), pytest.param("float16", marks=gpu)])
def test_half_precision_runs(checkpoint: Path, dtype: str) -> None:
    assert [len(ids) for ids in answers(checkpoint, "cuda", dtype=dtype)] == [24, 24, 24]


def test_a_device_that_is_not_here_is_refused_in_words(checkpoint: Path) -> None:
    with pytest.raises(ResourceError, match=r"device cuda:63 is not here: torch sees \d+ CUDA devices"):
        LLM(str(checkpoint), device="cuda:63")
