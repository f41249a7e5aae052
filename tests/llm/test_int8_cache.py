"""Keys and values in int8 through the whole product: memory, and tokens that depend on nothing else.

Weights are packed: their products give a row the same bits in any company, so that tokens are compared one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.ops import native

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
_START = [5 + i % 40 for i in range(40)]
PROMPTS = [{"prompt_token_ids": _START[:first] + [60 + n] * more} for n, (first, more) in
           enumerate([(40, 3), (0, 1), (32, 20), (40, 45), (17, 2)])]  # fmt: skip
PARAMS = SamplingParams(temperature=0.8, seed=3, max_tokens=20, ignore_eos=True)
OPTIONS: dict[str, Any] = {"quantize": "int8", "kv_cache_dtype": "int8", "skip_tokenizer_init": True,
                           "max_model_len": 112, "block_size": 16}  # fmt: skip
PER_TOKEN = 2 * 2 * 2 * (16 + 4)  # 2 layers of keys and values, 2 KV heads of 16 bytes and a scale


def answers(llm: LLM) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS)]


@pytest.fixture(scope="module")
def wanted(checkpoint: Path) -> Iterator[list[list[int]]]:
    """One by one, nothing shared, nothing guessed, nothing cut."""
    with LLM(str(checkpoint), enable_prefix_caching=False, speculation=0, **OPTIONS) as llm:
        yield [llm.generate([prompt], PARAMS)[0].outputs[0].token_ids for prompt in PROMPTS]


def test_memory_is_counted_with_the_scales(checkpoint: Path) -> None:
    with LLM(str(checkpoint), max_num_seqs=2, **OPTIONS) as llm:
        plan, memory = llm.plugin.runtime.plan, llm.plugin.get_memory_stats()
        caches = llm.plugin.runtime._loop._core._runner._caches
    assert plan.kv_bytes_per_token == PER_TOKEN
    assert memory["kv_cache_reserved_bytes"] == plan.kv_cache == 2 * 112 * PER_TOKEN
    assert sum(x.nbytes for cache in caches for x in (cache.k, cache.v, cache.scales)) == plan.kv_cache


def test_a_prefix_that_is_found_again_gives_the_same_tokens(
    checkpoint: Path, wanted: list[list[int]]
) -> None:
    with LLM(str(checkpoint), **OPTIONS) as llm:
        assert [answers(llm), answers(llm)] == [wanted, wanted]
        again = llm.generate(PROMPTS, PARAMS)
    assert [output.metrics.num_cached_tokens for output in again if output.metrics] == [32, 0, 48, 80, 16]


def test_pieces_of_prompts_and_preemption_change_nothing(checkpoint: Path, wanted: list[list[int]]) -> None:
    with LLM(str(checkpoint), max_num_batched_tokens=7, **OPTIONS) as llm:
        assert answers(llm) == wanted
    few = 9 * 16 * PER_TOKEN / 1e9
    with LLM(str(checkpoint), kv_cache_memory_gb=few, enable_prefix_caching=False, **OPTIONS) as llm:
        assert answers(llm) == wanted
        assert llm.plugin.get_compute_stats()["preemptions"] > 0


def test_the_cache_differs_from_one_in_floats_and_runs_without_packed_weights(checkpoint: Path) -> None:
    plain = OPTIONS | {"quantize": None}
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
    with LLM(str(checkpoint), dtype="float32", **plain) as llm:
        ours = llm.generate(PROMPTS, params)
    with LLM(str(checkpoint), dtype="float32", **plain | {"kv_cache_dtype": "float32"}) as llm:
        exact = llm.generate(PROMPTS, params)
    differences = []
    for one, other in zip(ours, exact, strict=True):
        [mine], [theirs] = one.outputs[0].logprobs, other.outputs[0].logprobs
        differences += [abs(mine[at].logprob - theirs[at].logprob) for at in mine.keys() & theirs.keys()]
    assert 1e-5 < max(differences) < 0.1
