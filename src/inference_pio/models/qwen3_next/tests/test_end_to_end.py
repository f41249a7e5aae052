"""Qwen3-Next from a path to text, and what is said of it before."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_pio import create_plugin, initialize_plugin
from inference_pio.cli.plan import _show
from inference_pio.conformance.subject import Subject
from inference_pio.conformance.tiny_tokenizer import END_OF_TURN
from inference_pio.llm import LLM
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.plan_only import plan_only
from inference_pio.sampling_params import SamplingParams
from inference_pio.security import ResourceLimits

_GREEDY = SamplingParams(temperature=0.0, max_tokens=20)
# 3 layers: 3 inputs of 2 · 64 + 96 channels, 8 matrices of 16 × 12, in float32.
_STATE = 3 * 4 * (3 * 224 + 8 * 16 * 12)


def test_one_file_and_many_give_the_same_answer(subject: Subject, tiny_llm: LLM) -> None:
    expected = tiny_llm.generate("the cat and the hat", _GREEDY)[0].outputs[0]
    path = str(subject.checkpoint("three-to-one", "sharded"))
    with LLM(path, dtype="float32", kv_cache_memory_gb=0.01) as llm:
        answer = llm.generate("the cat and the hat", _GREEDY)[0].outputs[0]
    assert (answer.token_ids, answer.text) == (expected.token_ids, expected.text)


def test_the_plugin_and_the_facade_answer_alike(tiny_path: Path, tiny_llm: LLM) -> None:
    plugin = create_plugin("qwen3_next")
    config = Qwen3NextConfig(
        model_path=str(tiny_path), torch_dtype="float32", do_sample=False, repetition_penalty=1.0
    )
    assert initialize_plugin(plugin, config=config, kv_cache_memory_gb=0.01)
    messages = [{"role": "user", "content": "the hat"}]
    prompt = f"<|im_start|>user\nthe hat{END_OF_TURN}\n<|im_start|>assistant\n"
    expected = tiny_llm.chat(messages, _GREEDY)[0]
    assert expected.prompt == prompt == plugin._format_chat_messages(messages)
    assert plugin.chat_completion(messages, max_new_tokens=20) == expected.outputs[0].text
    assert plugin.detokenize(plugin.tokenize("Grüße, 你好")) == "Grüße, 你好"
    plugin.cleanup()


def _planned(path: Path, limits: ResourceLimits | None = None, **options: int):
    return plan_only(str(path), "float32", "cpu", RuntimeOptions(**options), limits, None)


def test_the_plan_tells_states_from_tokens(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = _planned(tiny_path, max_num_seqs=3)
    plan = planned.prepared.plan
    assert (plan.num_seqs, plan.state_bytes_per_sequence, plan.state) == (3, _STATE, 3 * _STATE)
    assert plan.kv_cache == plan.state + plan.kv_tokens * plan.kv_bytes_per_token
    assert plan.logit_rows == 3, "no rows for drafts, since there are none"
    _show(planned)
    shown = capsys.readouterr().out
    assert "3 × 26.5 kB for a sequence" in shown
    assert "Nothing is guessed ahead" in shown
    _show(_planned(tiny_path, speculation=0))
    assert "guessed" not in capsys.readouterr().out


def test_memory_is_what_the_plan_says(tiny_path: Path) -> None:
    with LLM(str(tiny_path), dtype="float32", max_num_seqs=3) as llm:
        plan = llm.plugin.runtime.plan
        assert llm.plugin.get_memory_stats()["kv_cache_reserved_bytes"] == plan.kv_cache
        stream = llm.stream({"prompt_token_ids": [1] * 9}, SamplingParams(max_tokens=200, ignore_eos=True))
        next(stream)
        used = llm.plugin.get_memory_stats()["kv_cache_used_bytes"]
        stream.close()
        assert used > _STATE
        assert (used - _STATE) % (32 * plan.kv_bytes_per_token) == 0
        assert llm.plugin.runtime._loop._core.config.max_num_seqs == 3


def test_scarce_memory_means_fewer_sequences(tiny_path: Path) -> None:
    """Of what is left half may be states: 64 sequences are asked for, as many run as have room for theirs."""
    fixed = _planned(tiny_path).prepared.plan
    room = 40 * _STATE
    limit = ResourceLimits(memory_gb=(fixed.total - fixed.kv_cache + room + 1000) / 1e9)
    scarce = _planned(tiny_path, limit).prepared.plan
    assert (scarce.num_seqs, scarce.fits) == (20, True)
    assert scarce.kv_cache <= room


def test_nothing_is_guessed_ahead(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where guesses would cost nothing and the text repeats itself; the report says why."""
    from inference_pio.engine.step_costs import StepCosts

    monkeypatch.setattr(StepCosts, "comparable", True)
    monkeypatch.setattr(StepCosts, "ratios", lambda _, most: [(count, 1.0) for count in range(1, most + 1)])
    params = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True, logit_bias={65: 90.0})
    with LLM(str(tiny_path), dtype="float32", kv_cache_memory_gb=0.01) as llm:
        llm.generate("aaaaaaaaaaaaaaaa", params)
        assert llm.plugin.get_compute_stats()["draft_tokens"] == 0
        report = {entry["name"]: entry for entry in llm.plugin.get_optimization_report()}
    assert report["speculative decoding"]["status"] == "not applicable"
    assert "cannot be taken back" in report["speculative decoding"]["reason"]
