"""The comparison on the trace's beginning, and its ideals against caches that try everything."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

import prefix_cache

TRACE = Path("mooncake")  # the excerpt that comes with the package


def test_the_engine_finds_what_a_cache_of_its_size_can():
    prompts = prefix_cache.read_trace(TRACE, 32, 400)
    assert len(prompts) == 400
    for found in prefix_cache.compare(prompts, (500, 2000, 20_000)):
        assert found.engine >= found.lru - 0.02
        assert found.engine <= found.belady
    assert found.engine == found.lru == found.belady > 0.1  # there is room for everything


def test_scaling_down_leaves_what_prompts_share():
    for scale in (32, 64):
        prompts = prefix_cache.read_trace(TRACE, scale, 50)
        for one, other in itertools.combinations(prompts, 2):
            shared = sum(
                1
                for _ in itertools.takewhile(
                    lambda pair: pair[0] == pair[1], zip(one.blocks, other.blocks, strict=False)
                )
            )
            tokens = itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(one.token_ids(), other.token_ids(), strict=False)
            )
            assert sum(1 for _ in tokens) // one.block_size >= shared
            if shared < min(len(one.blocks), len(other.blocks)):
                assert (
                    one.token_ids()[: (shared + 1) * one.block_size]
                    != other.token_ids()[: (shared + 1) * one.block_size]
                )


def best(prompts, blocks: int) -> int:
    """Tokens that the best of all choices of what to keep finds."""
    states = {frozenset(): 0}
    for prompt in prompts:
        after: dict[frozenset[int], int] = {}
        for cache, found in states.items():
            hits = found + prefix_cache._found(prompt, dict.fromkeys(cache, 0))
            there = sorted(cache | set(prompt.blocks))
            for kept in itertools.combinations(there, min(blocks, len(there))):
                after[frozenset(kept)] = max(after.get(frozenset(kept), 0), hits)
        states = after
    return max(states.values())


@pytest.mark.parametrize("seed", range(20))
def test_nothing_finds_more_than_belady(seed):
    draw = random.Random(seed)
    chains = [(1, 2, 3), (1, 2, 4), (1, 5), (6, 7, 8), (6,), (9, 10)]
    prompts = [prefix_cache.Prompt(4 * len(chain) + 1, chain, 4) for chain in draw.choices(chains, k=9)]
    total = sum(prompt.num_tokens for prompt in prompts)
    for blocks in (1, 2, 3, 4):
        assert round(prefix_cache.belady(prompts, blocks) * total) == best(prompts, blocks)


def test_the_command_prints_a_line_per_size(capsys):
    arguments = ["--trace", str(TRACE), "--requests", "20", "--blocks", "10,1000"]
    assert prefix_cache.main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [found["blocks"] for found in document["found"]] == [10, 1000]
    assert prefix_cache.main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_trace_without_hashes_is_refused(capsys):
    with pytest.raises(SystemExit):
        prefix_cache.main(["--trace", "azure-code"])
    assert "does not say what prompts share" in capsys.readouterr().err
