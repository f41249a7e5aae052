"""Gemma 3 in blocks: windows, scaled embeddings and GeGLU as recorded steps, past the window's length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams, ops
from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.engine.replay import StepReplay
from inference_pio.ops import native
from requantize import requantize

pytest.importorskip("inference_pio.models.gemma3_text")
pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=native.MISSING or "")
_GREEDY = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
_OPTIONS: dict[str, Any] = {
    "skip_tokenizer_init": True,
    "block_size": 16,
    "kv_cache_memory_gb": 0.02,
    "kv_cache_dtype": "float32",
}
# The window has 24 tokens: reached before, within and after the prompt.
_PROMPTS = [{"prompt_token_ids": token_ids(length, 272, length)} for length in (5, 23, 90)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    subject = Subject.of("gemma3_text", tmp_path_factory.mktemp("windows"), collected={})
    source = subject.checkpoint("five-to-one", "gguf")
    return requantize(source, subject.workdir / "packed.gguf", lambda _: "Q8_0")


def _answers(path: Path) -> list[list[int]]:
    with LLM(str(path), **_OPTIONS) as llm:
        return [output.outputs[0].token_ids for output in llm.generate(_PROMPTS, _GREEDY)]


def test_a_recorded_step_is_the_step(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[StepReplay] = []
    original = StepReplay.__init__

    def noted(self: StepReplay, *arguments: Any) -> None:
        original(self, *arguments)
        made.append(self)

    monkeypatch.setattr(StepReplay, "__init__", noted)
    recorded = _answers(packed)
    assert [replay.refused for replay in made] == [None]
    assert made[0]._steps, "no step was recorded"
    monkeypatch.setattr(StepReplay, "run", lambda self, batch: self._forward(batch))
    assert _answers(packed) == recorded


def test_packed_answers_begin_as_dense_ones(packed: Path) -> None:
    """Activations of 8 bits may turn a close choice, but not the first ones of every prompt."""
    with ops.use("reference"):
        exact = _answers(packed)
    found = _answers(packed)
    alike = sum(
        a == b
        for ours, theirs in zip(found, exact, strict=True)
        for a, b in zip(ours[:5], theirs[:5], strict=True)
    )
    assert alike >= 12, f"{alike} of 15"
