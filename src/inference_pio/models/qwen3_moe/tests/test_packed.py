"""Qwen3-MoE with experts in blocks: what stays in memory, what is computed, and that decoding is recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import quants

from inference_pio import LLM, SamplingParams, ops
from inference_pio.conformance.numbers import token_ids
from inference_pio.errors import UsageError
from inference_pio.models.qwen3_moe.tests.case import TINY
from inference_pio.models.qwen3_moe.tests.reference import TransformersQwen3Moe, write_gguf
from inference_pio.ops import native
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.plan import MemoryPlan
from inference_pio.runtime.plan_only import plan_only
from inference_pio.security import ResourceLimits

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
_RAW = {**TINY["coder"], "moe_intermediate_size": 64}
_OPTIONS: dict[str, Any] = {"skip_tokenizer_init": True, "kv_cache_memory_gb": 0.01}
_GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def reference() -> TransformersQwen3Moe:
    """Weights that blocks of 8 bits hold exactly: they were in such blocks before."""
    made = TransformersQwen3Moe(_RAW)
    kind = gguf.GGMLQuantizationType.Q8_0
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if parameter.ndim > 1 and "mlp.gate." not in name:
                rounded = quants.dequantize(quants.quantize(parameter.numpy(), kind), kind)
                parameter.copy_(torch.from_numpy(rounded))
    return made


@pytest.fixture(scope="module")
def path(reference: TransformersQwen3Moe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def encode(name: str, value: Any) -> tuple[Any, gguf.GGMLQuantizationType | None]:
        if value.ndim == 1 or "ffn_gate_inp" in name:
            return value, None
        return quants.quantize(value, gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0

    return write_gguf(tmp_path_factory.mktemp("packed") / "x.gguf", _RAW, reference.model, encode)


def _model_of(llm: LLM) -> Any:
    return llm.plugin.runtime._model


def test_experts_stay_in_blocks_and_the_router_does_not(path: Path) -> None:
    with LLM(str(path), **_OPTIONS) as llm:
        block = _model_of(llm).model.layers[0].mlp
        assert set(block.experts.stacks) == {"gate_up_proj", "down_proj"}
        assert block.experts.gate_up_proj is None
        assert block.gate.weight.dtype == torch.float32
        kept = llm.plugin.get_memory_stats()["weights_bytes"]
        stored = llm.plugin.get_disk_stats()["model_bytes"]
        assert kept < 1.1 * stored
    with LLM(str(path), dtype="float32", **_OPTIONS) as llm:
        assert not _model_of(llm).model.layers[0].mlp.experts.stacks


def test_answers_are_those_of_the_same_weights_in_floats(path: Path, reference: TransformersQwen3Moe) -> None:
    """Activations have 8 bits, so that a distribution moves a little; tokens that win clearly stay."""
    prompt = token_ids(40, 272)
    params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=20)
    with LLM(str(path), **_OPTIONS) as llm:
        found = llm.generate([{"prompt_token_ids": prompt[:end]} for end in range(1, 41)], params)
    exact = reference.logits(prompt).log_softmax(-1)
    errors, agree = [], 0
    for row, result in zip(exact, found, strict=True):
        scores = (result.outputs[0].logprobs or [{}])[0]
        errors += [abs(entry.logprob - row[token_id].item()) for token_id, entry in scores.items()]
        agree += result.outputs[0].token_ids[0] == int(row.argmax())
    assert torch.tensor(errors).median() < 0.05
    assert agree >= 36


def test_decoding_is_recorded_and_says_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [{"prompt_token_ids": token_ids(length, 272, length)} for length in (3, 20)]
    replays: list[int] = []
    original = ops.RecordedStep.replay

    def noted(self: ops.RecordedStep) -> torch.Tensor:
        replays.append(1)
        return original(self)

    def refused(*_: object) -> None:
        raise ops.CannotRecord("a test")

    monkeypatch.setattr(ops.RecordedStep, "replay", noted)
    with LLM(str(path), **_OPTIONS) as llm:
        recorded = [result.outputs[0].token_ids for result in llm.generate(prompts, _GREEDY)]
    assert len(replays) >= 8, "the steps of decoding are one call each"
    monkeypatch.setattr(ops.RecordedStep, "__init__", refused)
    with LLM(str(path), **_OPTIONS) as llm:
        assert [result.outputs[0].token_ids for result in llm.generate(prompts, _GREEDY)] == recorded


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_a_checkpoint_in_floats_is_put_into_blocks(
    tmp_path: Path, reference: TransformersQwen3Moe, quantize: str
) -> None:
    directory = reference.save(tmp_path, "safetensors")
    with LLM(str(directory), quantize=quantize, **_OPTIONS) as llm:
        assert len(_model_of(llm).model.layers[1].mlp.experts.stacks) == 2
        answer = llm.generate({"prompt_token_ids": token_ids(20, 272)}, _GREEDY)[0].outputs[0]
    assert len(answer.token_ids) == 12


def test_experts_on_the_disk_say_the_same(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written the first time, there the second time, written again when the model's file has changed."""
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path))
    prompts = [{"prompt_token_ids": token_ids(length, 272, length)} for length in (3, 20)]

    def answers(experts: str, file: Path = path) -> list[list[int]]:
        read: list[int] = []
        with LLM(str(file), experts=experts, progress=lambda done, *_: read.append(done), **_OPTIONS) as llm:
            found = [result.outputs[0].token_ids for result in llm.generate(prompts, _GREEDY)]
            mapped.append(llm.plugin.runtime.plan.mapped)
        bytes_read.append(read[-1])
        return found

    mapped: list[int] = []
    bytes_read: list[int] = []
    own = tmp_path / "model.gguf"
    own.write_bytes(path.read_bytes())
    want = answers("memory", own)
    assert [answers("disk", own) for _ in range(2)] == [want, want]
    assert mapped[0] == 0 < mapped[1] == mapped[2]
    assert bytes_read[0] == bytes_read[1] > bytes_read[2], "the second time experts are there"
    (stacks,) = (tmp_path / "stacks").glob("*.stacks")
    assert stacks.stat().st_size >= mapped[1]
    own.touch()
    assert answers("disk", own) == want
    assert bytes_read[3] == bytes_read[0]


def test_experts_go_to_the_disk_where_memory_is_too_small(path: Path) -> None:
    def planned(experts: str, limit: float | None = None) -> MemoryPlan:
        limits = None if limit is None else ResourceLimits(memory_gb=limit / 1e9)
        options = RuntimeOptions(experts=experts, **_OPTIONS)
        return plan_only(str(path), "auto", "cpu", options, limits, None).prepared.plan

    whole, small = planned("memory"), planned("disk")
    assert small.mapped == whole.total - small.total > 0
    between = (whole.total + small.total) / 2
    assert planned("auto", whole.total + 1).mapped == 0
    found = planned("auto", between)
    assert found == replace(small, budget=found.budget, budget_name="memory_gb")
    assert found.fits
    assert not planned("memory", between).fits
    with pytest.raises(UsageError, match="experts must be one of auto, memory, disk, got 'gpu'"):
        RuntimeOptions(experts="gpu")
