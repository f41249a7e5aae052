"""Qwen3-VL's answers to texts against Transformers'."""

from __future__ import annotations

import pytest
import torch

from inference_pio.conformance.case import vocab_size
from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.llm import LLM
from inference_pio.models.qwen3_vl.tests.case import IMAGE, TINY
from inference_pio.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, logprobs=5)


def _words(count: int, vocabulary: int, seed: int = 0) -> list[int]:
    """Random tokens of text: none of them asks for an image."""
    return [word if word != IMAGE else IMAGE + 1 for word in token_ids(count, vocabulary, seed)]


@pytest.mark.parametrize("tiny", ["grouped", "multi-query", "thirds", "yarn"])
def test_greedy_continuation(subject: Subject, tiny: str) -> None:
    prompts = [_words(length, vocab_size(TINY[tiny]), length) for length in (1, 17, 60)]
    path = str(subject.checkpoint(tiny))
    with LLM(path, dtype="float32", skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
        results = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], _GREEDY)
    for prompt, result in zip(prompts, results, strict=True):
        assert result.outputs[0].token_ids == subject.reference(tiny).generate(prompt, 24)


def test_logprobs_are_those_of_the_model(subject: Subject, tiny_llm: LLM) -> None:
    prompt = _words(9, 272)
    answer = tiny_llm.generate({"prompt_token_ids": prompt}, _GREEDY)[0].outputs[0]
    expected = subject.reference("grouped").logits([*prompt, *answer.token_ids]).log_softmax(-1)[8:-1]
    assert answer.logprobs is not None
    for chosen, scores, row in zip(answer.token_ids, answer.logprobs, expected, strict=True):
        best = row.topk(5)
        assert list(scores)[:5] == best.indices.tolist()
        assert [entry.rank for entry in scores.values()] == [1, 2, 3, 4, 5]
        for token_id, entry in scores.items():
            assert entry.logprob == pytest.approx(row[token_id].item(), abs=1e-3)
        assert scores[chosen].rank == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near(subject: Subject, dtype: str) -> None:
    """The distribution in 16 bits is that in 32 up to rounding: total variation under 5 % at every position."""
    prompt = _words(50, 272)
    params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=20)
    path = str(subject.checkpoint("grouped"))
    with LLM(path, dtype=dtype, skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
        found = llm.generate([{"prompt_token_ids": prompt[:end]} for end in range(1, 50)], params)
    expected = subject.reference("grouped").logits(prompt).softmax(-1)
    for row, result in zip(expected, found, strict=False):
        scores = (result.outputs[0].logprobs or [{}])[0]
        distance = sum(
            abs(torch.tensor(entry.logprob).exp().item() - row[token_id].item())
            for token_id, entry in scores.items()
        )
        assert distance < 0.1


def test_an_answer_ends_where_the_positions_end(tiny_llm: LLM) -> None:
    prompt = _words(250, 272)
    params = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True)
    answer = tiny_llm.generate({"prompt_token_ids": prompt}, params)[0].outputs[0]
    assert len(answer.token_ids) == 256 - 250
    assert answer.finish_reason == "length"
