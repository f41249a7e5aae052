"""Qwen3-Next's answers against Transformers'."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.llm import LLM
from inference_pio.models.qwen3_next.tests.case import TINY
from inference_pio.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_greedy_continuation(subject: Subject, tiny: str) -> None:
    """Together in one engine, whose steps cut the longest prompt; slots are handed from one sequence to another."""
    prompts = [token_ids(length, TINY[tiny]["vocab_size"], length) for length in (1, 17, 90, 4, 33)]
    options = {"kv_cache_memory_gb": 0.01, "max_num_batched_tokens": 50, "max_num_seqs": 2}
    path = str(subject.checkpoint(tiny))
    with LLM(path, dtype="float32", skip_tokenizer_init=True, **options) as llm:
        results = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], _GREEDY)
    for prompt, result in zip(prompts, results, strict=True):
        assert result.outputs[0].token_ids == subject.reference(tiny).generate(prompt, 24)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near(subject: Subject, dtype: str) -> None:
    """As near to float32 as Transformers' own model in that type, up to a factor of one and a half."""
    prompt = token_ids(50, 272)
    exact = subject.reference("three-to-one").logits(prompt).log_softmax(-1)
    theirs = deepcopy(subject.reference("three-to-one").model).to(getattr(torch, dtype))
    with torch.inference_mode():
        rounded = theirs(torch.tensor([prompt]), use_cache=False).logits[0].float().log_softmax(-1)
    params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=20)
    path = str(subject.checkpoint("three-to-one"))
    with LLM(path, dtype=dtype, skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as llm:
        found = llm.generate([{"prompt_token_ids": prompt[:end]} for end in range(1, 51)], params)
    ours, reference = [], []
    for row, result in enumerate(found):
        scores = (result.outputs[0].logprobs or [{}])[0]
        ids = list(scores)
        logprobs = torch.tensor([scores[token_id].logprob for token_id in ids])
        ours.append((logprobs - exact[row, ids]).abs().mean())
        reference.append((rounded[row, ids] - exact[row, ids]).abs().mean())
    assert torch.stack(ours).mean() < 1.5 * torch.stack(reference).mean()


def test_an_answer_ends_where_the_positions_end(tiny_llm: LLM) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True)
    answer = tiny_llm.generate({"prompt_token_ids": token_ids(251, 272)}, params)[0].outputs[0]
    assert (len(answer.token_ids), answer.finish_reason) == (256 - 251, "length")
