"""Qwen3-MoE's answers against Transformers'."""

from __future__ import annotations

import pytest
import torch

from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.llm import LLM
from inference_pio.models.qwen3_moe.tests.case import TINY
from inference_pio.models.qwen3_moe.tests.reference import TransformersQwen3Moe
from inference_pio.sampling_params import SamplingParams

_COUNT = 16
_GREEDY = SamplingParams(temperature=0.0, max_tokens=_COUNT, ignore_eos=True, logprobs=5)


@pytest.mark.parametrize(("tiny", "kind"), [("experts", "gguf"), ("dense-between", "safetensors")])
def test_greedy_continuation(subject: Subject, tiny: str, kind: str) -> None:
    prompts = [token_ids(length, TINY[tiny]["vocab_size"], length) for length in (1, 17, 60)]
    path = str(subject.checkpoint(tiny, kind))
    with LLM(path, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
        results = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], _GREEDY)
    for prompt, result in zip(prompts, results, strict=True):
        assert result.outputs[0].token_ids == subject.reference(tiny).generate(prompt, _COUNT)


def test_logprobs_are_those_of_the_model(subject: Subject, tiny_llm: LLM) -> None:
    prompt = token_ids(9, 272)
    answer = tiny_llm.generate({"prompt_token_ids": prompt}, _GREEDY)[0].outputs[0]
    expected = subject.reference("experts").logits([*prompt, *answer.token_ids]).log_softmax(-1)[8:-1]
    assert answer.logprobs is not None
    for scores, row in zip(answer.logprobs, expected, strict=True):
        assert list(scores)[:5] == row.topk(5).indices.tolist()
        for token_id, entry in scores.items():
            assert entry.logprob == pytest.approx(row[token_id].item(), abs=1e-3)


def test_bfloat16_is_as_near_as_transformers(subject: Subject) -> None:
    """Against float32 a token in bfloat16 may take another expert, here and there: a mean over positions tells."""
    prompt = token_ids(50, 272)
    exact = subject.reference("experts").logits(prompt).log_softmax(-1)
    theirs = TransformersQwen3Moe(TINY["experts"])
    theirs.model.bfloat16()
    allowed = (theirs.logits(prompt).float().log_softmax(-1) - exact).abs().mean()
    params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=20)
    with LLM(
        str(subject.checkpoint("experts")),
        dtype="bfloat16",
        skip_tokenizer_init=True,
        kv_cache_memory_gb=0.01,
    ) as llm:
        found = llm.generate([{"prompt_token_ids": prompt[:end]} for end in range(1, 50)], params)
    errors = [
        abs(entry.logprob - row[token_id].item())
        for row, result in zip(exact, found, strict=False)
        for token_id, entry in (result.outputs[0].logprobs or [{}])[0].items()
    ]
    assert torch.tensor(errors).mean() <= 1.5 * allowed
