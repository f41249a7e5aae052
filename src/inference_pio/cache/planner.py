"""How many blocks and slots a memory budget buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference_pio.cache.specs import CacheSpec
from inference_pio.errors import ResourceError


@dataclass(frozen=True)
class CachePlan:
    """What to allocate; `bytes_total` is what `CacheSpec.allocate` takes, to the byte.

    num_slots is how many sequences can run at once: where a layer keeps state, the engine's `max_num_seqs`.
    """

    num_blocks: int
    num_slots: int
    bytes_total: int
    bytes_per_block: int
    bytes_per_sequence: int


def plan_cache(
    budget_bytes: int,
    specs: Sequence[CacheSpec],
    *,
    block_size: int,
    max_num_seqs: int,
    max_model_len: int,
    least_len: int | None = None,
) -> CachePlan:
    """Divide `budget_bytes` among slots (memory fixed per sequence) and blocks (memory that grows with tokens).

    Slots come first, up to `max_num_seqs`, as long as one sequence of `max_model_len` tokens still fits; blocks take
    the rest, up to what `max_num_seqs` such sequences could fill. Where a sequence can do with less cache than its
    length, `least_len` tokens are what must fit.

    Raises:
        ResourceError: not even one sequence of `max_model_len` tokens fits; names the length that would.
    """
    bytes_per_block = block_size * sum(spec.bytes_per_token() for spec in specs)
    bytes_per_sequence = sum(spec.bytes_per_sequence() for spec in specs)
    blocks_per_sequence = -(-max_model_len // block_size)
    least_len = max_model_len if least_len is None else min(least_len, max_model_len)
    least_blocks = -(-least_len // block_size)
    least = least_blocks * bytes_per_block + bytes_per_sequence
    if least > budget_bytes:
        fitting = max(0, budget_bytes - bytes_per_sequence) // max(1, bytes_per_block) * block_size
        raise ResourceError(
            f"one sequence of {least_len} tokens does not fit the cache: {least_blocks} blocks × "
            f"{_size(bytes_per_block)} + {_size(bytes_per_sequence)} of state = {_size(least)} > "
            f"{_size(budget_bytes)}; "
            + (f"max_model_len {fitting} fits" if fitting else f"give it at least {_size(least)}")
        )
    num_slots = max_num_seqs
    if bytes_per_sequence:
        num_slots = min(max_num_seqs, 1 + (budget_bytes - least) // bytes_per_sequence)
    num_blocks = num_slots * blocks_per_sequence
    if bytes_per_block:
        num_blocks = min(num_blocks, (budget_bytes - num_slots * bytes_per_sequence) // bytes_per_block)
    return CachePlan(
        num_blocks=num_blocks,
        num_slots=num_slots,
        bytes_total=num_blocks * bytes_per_block + num_slots * bytes_per_sequence,
        bytes_per_block=bytes_per_block,
        bytes_per_sequence=bytes_per_sequence,
    )


def _size(num_bytes: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} B"
