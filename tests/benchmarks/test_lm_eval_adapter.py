"""The adapter against the harness's own model of the same weights through Transformers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inference_pio.benchmarks.lm_eval_adapter import InferencePIO
from inference_pio.errors import UnavailableError, UsageError

TEXTS = ["The sea is wide", "one two three two one", "x" * 300]
PAIRS = [
    ("The sea is", " wide"),
    ("The sea is ", "wide"),
    ("one two", " three two"),
    ("", "The sea"),
    ("x" * 200, "y"),
]


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=one) for one in arguments]


@pytest.mark.slow
def test_without_the_harness_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from inference_pio.benchmarks import lm_eval_adapter as adapter\n"
        "adapter.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == UnavailableError.exit_code
    assert done.stderr.startswith(
        "error: the evaluation harness is not installed: pip install inference-pio[lm-eval]"
    )
    assert done.stderr.count("\n") == 1
    monkeypatch.setattr("inference_pio.benchmarks.lm_eval_adapter._MISSING", "not here")
    with pytest.raises(UnavailableError, match="not here"):
        InferencePIO("smollm2")


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path) -> Iterator[Any]:
    pytest.importorskip("lm_eval")
    # What the harness's command line says where nobody chose; where there is CUDA it would mean it.
    device = "cpu" if torch.cuda.is_available() else "cuda:0"
    model = InferencePIO(str(tiny_llama), dtype="float32", device=device, max_length=128, batch_size="auto")
    yield model
    model.close()


@pytest.fixture(scope="module")
def reference(tiny_llama: Path) -> Any:
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    return huggingface.HFLM(str(tiny_llama), dtype="float32", device="cpu", max_length=128, batch_size=1)


def test_likelihoods_are_those_of_the_harness(adapter: Any, reference: Any) -> None:
    found = adapter.loglikelihood(requests(*PAIRS), disable_tqdm=True)
    expected = reference.loglikelihood(requests(*PAIRS), disable_tqdm=True)
    for (ours, greedy), (theirs, their_greedy) in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3)
        assert greedy == their_greedy


def test_whole_texts_are_scored_in_the_same_windows(adapter: Any, reference: Any) -> None:
    asked = [(text,) for text in TEXTS]  # the last one is longer than the context
    found = adapter.loglikelihood_rolling(requests(*asked), disable_tqdm=True)
    assert found == pytest.approx(
        reference.loglikelihood_rolling(requests(*asked), disable_tqdm=True), abs=5e-3
    )


def test_answers_are_greedy_and_end_where_the_task_says(adapter: Any, reference: Any) -> None:
    asked = [(text, {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False}) for text in TEXTS]
    found = adapter.generate_until(requests(*asked), disable_tqdm=True)
    assert found == reference.generate_until(requests(*asked), disable_tqdm=True)
    letter = next(character for character in found[0] if character.isprintable())
    stops = ["\0", "\1", "\2", "\3", letter]  # more than the engine takes
    [short] = adapter.generate_until(
        requests((TEXTS[0], {"until": stops, "max_gen_toks": 12})), disable_tqdm=True
    )
    assert short == found[0].partition(letter)[0]


def test_what_is_not_known_is_said(adapter: Any, tiny_llama: Path) -> None:
    with pytest.raises(UsageError, match="beams"):
        adapter.generate_until(requests(("a", {"beams": 4})), disable_tqdm=True)
    with pytest.raises(UsageError, match="max_model_len"):
        InferencePIO(str(tiny_llama), max_model_len=9)
    with pytest.raises(UsageError, match="own chat template"):
        adapter.chat_template("other")


def test_conversations_take_the_models_template(adapter: Any) -> None:
    written = adapter.apply_chat_template([{"role": "user", "content": "hello there"}])
    assert "hello there" in written
    assert adapter.chat_template(True)
    assert adapter.chat_template() == ""
    assert "/" not in adapter.tokenizer_name


def test_the_harness_knows_its_name(adapter: Any) -> None:
    registry = pytest.importorskip("lm_eval.api.registry")
    assert adapter
    assert registry.get_model("inference-pio") is InferencePIO
