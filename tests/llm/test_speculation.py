"""A real model gives the same answers with drafts and without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.engine.step_costs import DRAFT_COUNTS, StepCosts
from inference_pio.errors import UsageError
from inference_pio.outputs import RequestOutput
from inference_pio.plugin.runtime import RuntimeOptions

PROMPTS = ["the cat and the hat and the cat and the", "in " * 20, "the thing", "a"]
# A random model repeats little by itself, and much if two tokens outweigh all others.
REPEATING = {"logit_bias": {65: 90.0, 66: 90.0}}
FIELDS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.0, "logprobs": 2, **REPEATING},
    {"temperature": 0.3, "seed": 3, "top_k": 3, "repetition_penalty": 1.05, **REPEATING},
    {"temperature": 1.0, "seed": 5, "n": 2, **REPEATING},
]


@pytest.fixture
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where drafts cost nothing, so that what is drafted does not depend on this one's speed."""
    monkeypatch.setattr(StepCosts, "comparable", True)
    monkeypatch.setattr(
        StepCosts, "ratios", lambda _, most: [(count, 1.0) for count in DRAFT_COUNTS if count <= most]
    )


@pytest.fixture
def drafting(checkpoint: Path, always_worth_it: None) -> Iterator[LLM]:  # noqa: ARG001
    with LLM(str(checkpoint), dtype="float32", kv_cache_memory_gb=0.02, block_size=16) as model:
        yield model


def _same(got: RequestOutput, expected: RequestOutput) -> None:
    for one, other in zip(got.outputs, expected.outputs, strict=True):
        assert one.token_ids == other.token_ids
        assert (one.text, one.finish_reason, one.stop_reason) == (
            other.text,
            other.finish_reason,
            other.stop_reason,
        )
        for score, wanted in zip(one.logprobs or (), other.logprobs or (), strict=True):
            assert {k: v.rank for k, v in score.items()} == {k: v.rank for k, v in wanted.items()}
            for token_id, entry in score.items():
                assert entry.logprob == pytest.approx(wanted[token_id].logprob, abs=1e-4)


@pytest.mark.parametrize("fields", FIELDS)
def test_drafts_change_nothing_but_the_number_of_steps(
    checkpoint: Path, drafting: LLM, fields: dict[str, Any]
) -> None:
    params = SamplingParams(max_tokens=100, ignore_eos=True, **fields)
    options: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_gb": 0.02, "block_size": 16}
    with LLM(str(checkpoint), speculation=0, **options) as plain:
        expected = [plain.generate(prompt, params)[0] for prompt in PROMPTS]
        steps = plain.plugin.get_compute_stats()["steps"]
        assert plain.plugin.get_compute_stats()["draft_tokens"] == 0
    alone = [drafting.generate(prompt, params)[0] for prompt in PROMPTS]
    stats = drafting.plugin.get_compute_stats()
    beside = drafting.generate(PROMPTS, params)
    for got, together, wanted in zip(alone, beside, expected, strict=True):
        _same(got, wanted)
        _same(together, wanted)
    assert 0 < stats["accepted_draft_tokens"] <= stats["draft_tokens"]
    assert stats["steps"] < (0.8 if "logit_bias" in fields else 1.0) * steps


def test_stop_strings_inside_drafts(drafting: LLM, checkpoint: Path) -> None:
    free = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True)
    text = drafting.generate(PROMPTS[0], free)[0].outputs[0].text
    stop = text[-20:-17]
    params = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True, stop=stop)
    with LLM(str(checkpoint), dtype="float32", kv_cache_memory_gb=0.02, speculation=0) as plain:
        _same(drafting.generate(PROMPTS[0], params)[0], plain.generate(PROMPTS[0], params)[0])


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_a_wrong_setting_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="speculation must be a whole number from 0 up"):
        RuntimeOptions(speculation=wrong)


def test_what_is_no_switch_is_refused() -> None:
    with pytest.raises(UsageError, match="mtp must be True or False, got 'no'"):
        RuntimeOptions(mtp="no")  # type: ignore[arg-type]
