"""Keys and values in 8 and 4 bits through the whole product: memory, and tokens that depend on nothing else.

Weights are packed: their products give a row the same bits in any company, so that tokens are compared one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio import LLM, SamplingParams, create_plugin
from inference_pio.ops import native
from inference_pio.optimizations.quality import Grant
from inference_pio.runtime.local import LocalRuntime

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
_START = [5 + i % 40 for i in range(40)]
PROMPTS = [{"prompt_token_ids": _START[:first] + [60 + n] * more} for n, (first, more) in
           enumerate([(40, 3), (0, 1), (32, 20), (40, 45), (17, 2)])]  # fmt: skip
PARAMS = SamplingParams(temperature=0.8, seed=3, max_tokens=20, ignore_eos=True)
OPTIONS: dict[str, Any] = {"quantize": "int8", "skip_tokenizer_init": True,
                           "max_model_len": 112, "block_size": 16}  # fmt: skip
KINDS = {"int8": 16, "int4": 8}  # bytes of a head of 16 numbers, without its scale


def per_token(kind: str) -> int:
    """2 layers of keys and values, 2 KV heads, a scale of 16 bits each."""
    return 2 * 2 * 2 * (KINDS[kind] + 2)


def answers(llm: LLM) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS)]


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def options(kind: str) -> dict[str, Any]:
    return OPTIONS | {"kv_cache_dtype": kind}


@pytest.fixture(scope="module")
def wanted(checkpoint: Path, options: dict[str, Any]) -> Iterator[list[list[int]]]:
    """One by one, nothing shared, nothing guessed, nothing cut."""
    with LLM(str(checkpoint), enable_prefix_caching=False, speculation=0, **options) as llm:
        yield [llm.generate([prompt], PARAMS)[0].outputs[0].token_ids for prompt in PROMPTS]


def test_memory_is_counted_with_the_scales(checkpoint: Path, kind: str, options: dict[str, Any]) -> None:
    with LLM(str(checkpoint), max_num_seqs=2, **options) as llm:
        plan, memory = llm.plugin.runtime.plan, llm.plugin.get_memory_stats()
        caches = llm.plugin.runtime._loop._core._runner.caches
    assert plan.kv_bytes_per_token == per_token(kind)
    assert memory["kv_cache_reserved_bytes"] == plan.kv_cache == 2 * 112 * per_token(kind)
    assert sum(x.nbytes for cache in caches for x in (cache.k, cache.v, cache.scales)) == plan.kv_cache


def test_a_prefix_that_is_found_again_gives_the_same_tokens(
    checkpoint: Path, wanted: list[list[int]], options: dict[str, Any]
) -> None:
    with LLM(str(checkpoint), **options) as llm:
        assert [answers(llm), answers(llm)] == [wanted, wanted]
        again = llm.generate(PROMPTS, PARAMS)
    assert [output.metrics.num_cached_tokens for output in again if output.metrics] == [32, 0, 48, 80, 16]


def test_pieces_of_prompts_and_preemption_change_nothing(
    checkpoint: Path, wanted: list[list[int]], kind: str, options: dict[str, Any]
) -> None:
    with LLM(str(checkpoint), max_num_batched_tokens=7, **options) as llm:
        assert answers(llm) == wanted
    few = 9 * 16 * per_token(kind) / 1e9
    with LLM(str(checkpoint), kv_cache_memory_gb=few, enable_prefix_caching=False, **options) as llm:
        assert answers(llm) == wanted
        assert llm.plugin.get_compute_stats()["preemptions"] > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_cache_differs_from_one_in_floats_and_runs_without_packed_weights(
    checkpoint: Path, kind: str, options: dict[str, Any], dtype: str
) -> None:
    plain = options | {"quantize": None, "dtype": dtype}
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
    with LLM(str(checkpoint), **plain) as llm:
        ours = llm.generate(PROMPTS, params)
    with LLM(str(checkpoint), **plain | {"kv_cache_dtype": dtype}) as llm:
        exact = llm.generate(PROMPTS, params)
    differences = []
    for one, other in zip(ours, exact, strict=True):
        [mine], [theirs] = one.outputs[0].logprobs, other.outputs[0].logprobs
        differences += [abs(mine[at].logprob - theirs[at].logprob) for at in mine.keys() & theirs.keys()]
    assert 1e-5 < max(differences) < (0.1 if kind == "int8" else 1.0)


def test_layers_in_different_numbers_run_together_and_are_replayed(checkpoint: Path) -> None:
    """One layer in 4 bits, the other in bfloat16, as a receipt may have it; decoding steps are recorded."""
    runtime = LocalRuntime(grants=lambda name: Grant(name == "kv_int4", "chosen", (1,)))
    plugin = create_plugin("llama", runtime=runtime)
    config = plugin.config_class(model_path=str(checkpoint), kv_cache_quantization_bits=4)
    options = OPTIONS | {"enable": (), "max_num_seqs": 2}
    assert plugin.initialize(config=config, **options), plugin.last_error
    try:
        plugin.load_model()
        assert runtime.plan.kv_bytes_per_token == 2 * 2 * (8 + 2) + 2 * 2 * 16 * 2
        core = runtime._loop._core  # type: ignore[union-attr]
        assert [cache.k.dtype for cache in core._runner.caches] == [torch.uint8, torch.bfloat16]
        prompts = [prompt["prompt_token_ids"] for prompt in PROMPTS]
        first = [out.outputs[0].token_ids for out in runtime.generate(prompts, [PARAMS] * len(prompts))]
        again = [runtime.generate([prompt], [PARAMS])[0].outputs[0].token_ids for prompt in prompts]
        assert first == again
        assert core._runner._replay.refused is None
        assert core._runner._replay._steps
    finally:
        plugin.cleanup()
