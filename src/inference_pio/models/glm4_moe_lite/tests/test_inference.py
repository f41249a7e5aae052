"""Answers of glm4_moe_lite against Transformers'."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.llm import LLM
from inference_pio.models.glm4_moe_lite.tests.case import TINY
from inference_pio.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, logprobs=5)


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_greedy_continuation(subject: Subject, tiny: str) -> None:
    prompts = [token_ids(length, TINY[tiny]["vocab_size"], length) for length in (1, 17, 60)]
    path = str(subject.checkpoint(tiny, "sharded"))
    with LLM(path, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
        results = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], _GREEDY)
    for prompt, result in zip(prompts, results, strict=True):
        assert result.outputs[0].token_ids == subject.reference(tiny).generate(prompt, 24)


def test_a_cache_in_bfloat16_beside_float32(subject: Subject) -> None:
    """As beside packed weights: probabilities stay near those of an exact cache."""
    prompt = token_ids(60, 272)
    options = {"dtype": "float32", "skip_tokenizer_init": True, "kv_cache_memory_gb": 0.01}
    path = str(subject.checkpoint("low-rank"))
    found = []
    for kind in ("float32", "bfloat16"):
        with LLM(path, kv_cache_dtype=kind, **options) as llm:
            answer = llm.generate({"prompt_token_ids": prompt}, _GREEDY)[0].outputs[0]
        assert answer.logprobs is not None
        found.append(torch.tensor([entry.logprob for entry in answer.logprobs[0].values()][:5]))
    assert not torch.equal(found[0], found[1])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.1)


@pytest.mark.slow
def test_bfloat16_is_as_near_as_transformers(subject: Subject) -> None:
    """How far distributions in 16 bits are from those in 32, over all tiny models: ours beside Transformers' own.

    Rounding sends a token to another expert here or there, so that single prompts differ either way.
    """
    ours, theirs = 0.0, 0.0
    for tiny in TINY:
        their_model = _in_bfloat16(subject.reference(tiny).model)
        model = BareModel(subject.plugin(), subject.checkpoint(tiny), dtype=torch.bfloat16)
        for seed in range(8):
            prompt = token_ids(60, TINY[tiny]["vocab_size"], seed)
            exact = subject.reference(tiny).logits(prompt).softmax(-1)
            with torch.inference_mode():
                their_logits = their_model(torch.tensor([prompt])).logits[0].float()
            ours += (model.prefill(prompt).softmax(-1) - exact).abs().sum().item()
            theirs += (their_logits.softmax(-1) - exact).abs().sum().item()
    assert 0 < ours < 1.15 * theirs


def _in_bfloat16(model: Any) -> Any:
    """Transformers' model as it loads one: the bias of the choice stays in float32."""
    rounded = deepcopy(model).bfloat16()
    for name, bias in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            path, _, leaf = name.rpartition(".")
            setattr(rounded.get_submodule(path), leaf, bias)
    return rounded


def test_an_answer_ends_where_the_positions_end(tiny_llm: LLM) -> None:
    prompt = token_ids(250, 272)
    params = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True)
    answer = tiny_llm.generate({"prompt_token_ids": prompt}, params)[0].outputs[0]
    assert len(answer.token_ids) == 256 - 250
    assert answer.finish_reason == "length"
