"""Qwen2.5-Coder-1.5B-Instruct: a function it writes is run, and is right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.raw_config import raw_config

# Where the plugin is not there, neither are these tests.
CODER_CASE = pytest.importorskip("inference_pio.models.qwen2.tests.case")
pytestmark = [pytest.mark.slow, pytest.mark.weights]

_TASK = (
    "Write a Python function fibonacci(n) that returns the n-th Fibonacci number, with fibonacci(0) = 0 and "
    "fibonacci(1) = 1. Answer with one Python code block and nothing else."
)
_FIBONACCI = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181, 6765]
# What such a function may call; there is no __import__ among it.
_ALLOWED = {entry.__name__: entry for entry in (int, isinstance, len, list, max, min, range, sum, ValueError)}


def test_it_writes_a_function_that_is_right(qwen2_coder_path: Path) -> None:
    with LLM(str(qwen2_coder_path), max_model_len=512, kv_cache_memory_gb=0.1) as llm:
        conversation = [{"role": "user", "content": _TASK}]
        answer = llm.chat(conversation, SamplingParams(temperature=0.0, max_tokens=256))[0].outputs[0]
    assert answer.finish_reason == "stop", f"the answer does not end: {answer.text}"
    blocks = re.findall(r"```python\n(.*?)```", answer.text, re.DOTALL)
    assert len(blocks) == 1, answer.text
    namespace: dict[str, Any] = {"__builtins__": _ALLOWED}
    exec(compile(blocks[0], "answer", "exec"), namespace)
    assert [namespace["fibonacci"](n) for n in range(21)] == _FIBONACCI, blocks[0]


def test_the_header_that_the_contract_tests_hold_is_that_of_the_file(qwen2_coder_path: Path) -> None:
    with open_checkpoint(qwen2_coder_path) as checkpoint:
        shapes = {name: list(info.shape) for name, info in checkpoint.tensors.items()}
        stated = raw_config(checkpoint, qwen2_coder_path)
    assert CODER_CASE.CODER_GGUF["tensors"] == shapes
    architecture = {key for key in stated if not key.startswith(("tokenizer.", "gguf."))}
    assert CODER_CASE.CODER_GGUF["metadata"] == {key: stated[key] for key in architecture}
    assert CODER_CASE.CODER_GGUF["tokens"] == len(stated["tokenizer.ggml.tokens"])
    assert CODER_CASE.CODER_GGUF["chat_template"] == stated["tokenizer.chat_template"]
