"""Answers of glm4_moe_lite against Transformers'."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

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


def test_bfloat16_is_as_near_as_transformers(subject: Subject) -> None:
    """Total variation between the distributions in 16 bits and in 32, averaged: ours beside Transformers' own."""
    prompt = token_ids(50, 272)
    exact = subject.reference("low-rank").logits(prompt).softmax(-1)
    theirs = deepcopy(subject.reference("low-rank").model).bfloat16()
    for layer in theirs.model.layers[1:]:  # where it keeps float32 itself
        layer.mlp.gate.e_score_correction_bias = (
            subject.reference("low-rank")
            .model.model.layers[layer.self_attn.layer_idx]
            .mlp.gate.e_score_correction_bias
        )
    with torch.inference_mode():
        rounded = theirs(torch.tensor([prompt])).logits[0].float().softmax(-1)
    their_distance = (rounded - exact).abs().sum(-1).mean().item()
    params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=20)
    with LLM(
        str(subject.checkpoint("low-rank")),
        dtype="bfloat16",
        skip_tokenizer_init=True,
        kv_cache_memory_gb=0.01,
        enable_prefix_caching=False,
    ) as llm:
        found = llm.generate([{"prompt_token_ids": prompt[:end]} for end in range(1, 51)], params)
    distances = [
        sum(
            abs(torch.tensor(entry.logprob).exp().item() - row[token_id].item())
            for token_id, entry in (result.outputs[0].logprobs or [{}])[0].items()
        )
        for row, result in zip(exact, found, strict=True)
    ]
    assert 0 < sum(distances) / len(distances) < 1.5 * their_distance


def test_an_answer_ends_where_the_positions_end(tiny_llm: LLM) -> None:
    prompt = token_ids(250, 272)
    params = SamplingParams(temperature=0.0, max_tokens=100, ignore_eos=True)
    answer = tiny_llm.generate({"prompt_token_ids": prompt}, params)[0].outputs[0]
    assert len(answer.token_ids) == 256 - 250
    assert answer.finish_reason == "length"
