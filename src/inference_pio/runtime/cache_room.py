"""What fits into the memory that is left for caches: sequences, snapshots of states, tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_pio.errors import ResourceError

if TYPE_CHECKING:
    from inference_pio.plugin.runtime import RuntimeOptions

MAX_DEFAULT_KV_BYTES = 4 * 2**30
SHORTEST = 256  # tokens: what is less is of no use


def num_seqs(options: RuntimeOptions, room: int, per_sequence: int) -> int:
    """Sequences at once: what was asked for; of those with state as many as half the room holds, one at least."""
    if not per_sequence:
        return options.max_num_seqs
    return max(1, min(options.max_num_seqs, room // 2 // per_sequence))


def num_snapshots(most_bytes: int, room: int, per_sequence: int) -> int:
    """As many as fill half of what the prefix cache may keep, rounded up; blocks have the rest.

    Half, because a snapshot is worth nothing without the blocks before it, which take about as much.
    """
    if not per_sequence:
        return 0
    wanted = -(-most_bytes // (2 * per_sequence))
    return max(0, min(wanted, most_bytes // per_sequence, room // per_sequence))


def kv_tokens(options: RuntimeOptions, room: int, longest: int, per_token: int) -> int:
    """Whole blocks: what all sequences at full length need, within what was asked for, else the room there is.

    Where tokens are evicted, one sequence at a time needs its full length, while its prompt is computed. It can do with
    its budget and a step more.
    """
    if per_token == 0:
        return 0
    block = options.block_size
    if options.kv_cache_memory_gb is not None:
        asked = int(options.kv_cache_memory_gb * 1e9) // per_token // block
        if not asked:
            raise ResourceError(
                f"kv_cache_memory_gb {options.kv_cache_memory_gb:g} holds no block: {block} tokens of "
                f"{per_token:,} bytes are {block * per_token / 1e9:.2g} GB; give it several of them"
            )
        return min(asked, options.max_num_seqs * -(-longest // block)) * block
    most = min(room, MAX_DEFAULT_KV_BYTES) // per_token
    kept = min(longest, options.kv_cache_budget or longest)
    wanted = min(longest + (options.max_num_seqs - 1) * kept, most)
    # One sequence must fit: of the length that was asked for, or long enough to be of use.
    needed = options.max_model_len or min(longest, SHORTEST)
    if options.kv_cache_budget is not None:
        needed = min(
            needed, options.kv_cache_budget + max(options.block_size, options.max_num_batched_tokens)
        )
    return max(wanted // block, -(-needed // block)) * block
