"""How much of a trace's prompts the prefix cache finds, beside what a cache of its size could find at best.

    python benchmarks/prefix_cache.py --trace FILE [--blocks 2000,8000,32000] [--requests N] [--scale 32] [--json]

FILE is a trace of Mooncake's (Qin et al. 2024), or `mooncake`, the beginning of theirs that comes with the package:
JSON lines with `input_length` and `hash_ids`, one per 512 tokens of the prompt, equal where the prompts are equal up to
there (`inference_pio/benchmarks/traces.py`). It is replayed through the engine with a model that computes
nothing, scaled down: prompts of 1/scale of the tokens in blocks of 512/scale, one request after the other in the order
of the trace, one token of answer each. A cache of so many blocks then finds what one of so many blocks of 512 tokens
would. Two caches of the same size stand beside it, computed from the trace alone:

lru     forgets what was used longest ago: the usual order. "Ideal" in so far as it loses nothing to bookkeeping.
belady  forgets what is needed last or never again (Belady 1966): nobody can find more, and nobody can do it without
        knowing the future.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference_pio.benchmarks import traces
from inference_pio.benchmarks.traces import HASHED, scaled
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.errors import UsageError
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.sampling_params import SamplingParams

_VOCAB = 1024
_NEVER = 1 << 60
_ONE_TOKEN = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)


@dataclass(frozen=True)
class Prompt:
    """num_tokens, scaled down; blocks: names of its full blocks."""

    num_tokens: int
    blocks: tuple[int, ...]
    block_size: int

    @property
    def findable(self) -> int:
        """Full blocks that can be found: one token at least is computed."""
        return (self.num_tokens - 1) // self.block_size

    def token_ids(self) -> list[int]:
        """Tokens that are equal where the blocks are; those behind the last full block are of no matter."""
        names = [*self.blocks, 0][: -(-self.num_tokens // self.block_size)]
        tokens = [
            token
            for name in names
            for token in [1 + name // 900, 1 + name % 900, *[1] * (self.block_size - 2)]
        ]
        return tokens[: self.num_tokens]


@dataclass(frozen=True)
class Found:
    """Shares of all prompt tokens that a cache of `blocks` finds."""

    blocks: int
    engine: float
    lru: float
    belady: float


class _NothingSpec:
    """A layer whose tokens are counted and not kept."""

    def bytes_per_token(self) -> int:
        return 1

    def bytes_per_sequence(self) -> int:
        return 0

    def allocate(self, num_blocks: int, block_size: int, num_slots: int, device: torch.device) -> None:
        """Takes no memory."""


class _NothingModel(nn.Module):
    """Says token 0 always."""

    def forward(self, batch: Any, caches: Sequence[Any]) -> Tensor:  # noqa: ARG002
        return torch.zeros(len(batch.last_token), _VOCAB)


def read_trace(path: Path, scale: int, most: int | None = None) -> list[Prompt]:
    """The first `most` prompts of a trace, scaled down."""
    size = HASHED // scale
    requests = scaled(traces.read_trace(str(path), most), scale)
    if not requests[0].hash_ids:
        raise UsageError(f"{path} does not say what prompts share: give a trace with hash_ids")
    return [Prompt(one.prompt_tokens, one.hash_ids[: one.prompt_tokens // size], size) for one in requests]


def replay(prompts: Sequence[Prompt], blocks: int) -> float:
    """What the engine finds, keeping `blocks` beside those of the request that runs."""
    size, longest = prompts[0].block_size, max(prompt.num_tokens for prompt in prompts) + 1
    engine = EngineCore(
        _NothingModel(),
        [_NothingSpec()],
        EngineConfig(
            max_model_len=longest,
            max_num_seqs=1,
            max_num_batched_tokens=longest,
            block_size=size,
            num_blocks=blocks + -(-longest // size),
            prefix_cache_max_blocks=blocks,
        ),
        vocab_size=_VOCAB,
        eos_token_ids=(),
        prefix_policy=PrefixPolicy(seed=("trace",)),
        device=torch.device("cpu"),
    )
    for number, prompt in enumerate(prompts):
        engine.add_request(str(number), prompt.token_ids(), _ONE_TOKEN)
        while engine.has_work:
            engine.step()
    stats = engine.stats()
    return stats.prefix_hit_tokens / stats.prompt_tokens


def lru(prompts: Sequence[Prompt], blocks: int) -> float:
    """What forgetting the block used longest ago finds; of one prompt the end first."""
    cache: OrderedDict[int, None] = OrderedDict()
    found = 0
    for prompt in prompts:
        found += _found(prompt, cache)
        for block in reversed(prompt.blocks):
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > blocks:
            cache.popitem(last=False)
    return _share(found, prompts)


def belady(prompts: Sequence[Prompt], blocks: int) -> float:
    """What forgetting the block needed last finds; of those needed at the same time the one furthest from the start."""
    coming: list[list[int]] = []
    seen: dict[int, int] = {}
    for number in range(len(prompts) - 1, -1, -1):
        coming.append([seen.get(block, _NEVER) for block in prompts[number].blocks])
        seen |= dict.fromkeys(prompts[number].blocks, number)
    cache: dict[int, int] = {}
    order: list[tuple[int, int, int]] = []
    found = 0
    for prompt, uses in zip(prompts, reversed(coming), strict=True):
        found += _found(prompt, cache)
        for depth, (block, use) in enumerate(zip(prompt.blocks, uses, strict=True)):
            cache[block] = use
            heapq.heappush(order, (-use, -depth, block))
        while len(cache) > blocks:
            use, _, block = heapq.heappop(order)
            if cache.get(block) == -use:
                del cache[block]
    return _share(found, prompts)


def compare(prompts: Sequence[Prompt], sizes: Iterable[int]) -> list[Found]:
    return [
        Found(blocks, replay(prompts, blocks), lru(prompts, blocks), belady(prompts, blocks))
        for blocks in sizes
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trace", required=True, type=Path)
    parser.add_argument("--blocks", default="1000,2000,4000,8000,16000,32000,64000,128000")
    parser.add_argument("--requests", type=int, help="of the trace's beginning (all)")
    parser.add_argument("--scale", type=int, default=32, choices=(8, 16, 32, 64, 128))
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        prompts = read_trace(chosen.trace, chosen.scale, chosen.requests)
    except UsageError as error:
        parser.error(str(error))
    found = compare(prompts, [int(blocks) for blocks in chosen.blocks.split(",")])
    if chosen.json:
        print(json.dumps({"requests": len(prompts), "found": [asdict(each) for each in found]}, indent=2))
        return 0
    print(
        f"{len(prompts)} prompts, {sum(prompt.num_tokens for prompt in prompts)} tokens; found, in percent:"
    )
    print(f"{'blocks':>8} {'engine':>7} {'lru':>7} {'belady':>7}")
    for each in found:
        print(f"{each.blocks:8} {100 * each.engine:7.2f} {100 * each.lru:7.2f} {100 * each.belady:7.2f}")
    return 0


def _found(prompt: Prompt, cache: OrderedDict[int, None] | dict[int, int]) -> int:
    """Tokens of its leading blocks that are in the cache."""
    for count, block in enumerate(prompt.blocks[: prompt.findable]):
        if block not in cache:
            return count * prompt.block_size
    return prompt.findable * prompt.block_size


def _share(found: int, prompts: Sequence[Prompt]) -> float:
    return found / sum(prompt.num_tokens for prompt in prompts)


if __name__ == "__main__":
    sys.exit(main())
