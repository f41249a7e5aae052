"""From scheduled sequences to the tensors of one step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_pio.engine.sequence import Drafts, Sequence
from inference_pio.plugin.batch import ForwardBatch


def build_batch(
    scheduled: dict[Sequence, int],
    drafts: Drafts,
    tables: NDArray[np.int32],
    block_size: int,
    device: torch.device,
    *,
    with_state: bool,
) -> tuple[ForwardBatch, list[Sequence]]:
    """All scheduled tokens and drafts, flattened, and the sequences that get new tokens, in the order of their logits.

    A sequence gets a token when this step computes the last of its known ones. One with drafts has a row of logits
    for each of them besides, and is not computed beyond them. `tables` is `BlockManager.tables`. A short step is all
    overhead, and the model has driven everything else out of the caches: lists, which Python uses anyway, few arrays.
    """
    flat: list[int] = []
    positions: list[int] = []
    rows: list[int] = []  # of the cache, that the tokens write
    query_start, seq_lens, slots, drafted = [0], [], [], []
    sampled: list[Sequence] = []
    last: list[int] = []
    for sequence, num_scheduled_tokens in scheduled.items():
        assert sequence.slot is not None, "only admitted sequences are scheduled"
        start = sequence.num_computed_tokens
        end = start + num_scheduled_tokens
        flat += sequence.token_ids[start:end]
        if end == len(sequence.token_ids):
            sampled.append(sequence)
            last.append(len(flat) - 1)
            if guesses := drafts.get(sequence):
                last += range(len(flat), len(flat) + len(guesses))
                flat += guesses
                end += len(guesses)
        positions += range(start, end)
        rows += _rows(sequence, start, end, block_size)
        query_start.append(len(flat))
        seq_lens.append(end - sequence.num_evicted_tokens)
        slots.append(sequence.slot)
        drafted.append(end - start - num_scheduled_tokens or sequence.num_held)
    token_ids, position_of_token, row_of_token = np.array((flat, positions, rows), dtype=np.int64)
    max_seq_len = max(seq_lens)

    def tensor(values: NDArray[Any]) -> Tensor:
        made = torch.from_numpy(values)  # of a step's milliseconds even a `to` without effect takes some
        return made if device.type == "cpu" else made.to(device, non_blocking=True)

    batch = ForwardBatch(
        token_ids=tensor(token_ids),
        positions=tensor(position_of_token),
        query_start=tensor(np.array(query_start, dtype=np.int32)),
        seq_lens=tensor(np.array(seq_lens, dtype=np.int32)),
        block_tables=tensor(tables[slots, : -(-max_seq_len // block_size)]),
        slot_mapping=tensor(row_of_token),
        state_slots=tensor(np.array(slots, dtype=np.int64)) if with_state else None,
        last_token=tensor(np.array(last, dtype=np.int64)),
        max_query_len=max(end - start for start, end in pairwise(query_start)),
        max_seq_len=max_seq_len,
        drafts=tensor(np.array(drafted, dtype=np.int32)) if with_state and any(drafted) else None,
    )
    return batch, sampled


def _rows(sequence: Sequence, start: int, end: int, block_size: int) -> Iterator[int]:
    """Rows of the cache for a sequence's positions [start, end).

    What it has evicted were whole blocks in front of them: the others lie side by side in its table.
    """
    blocks, evicted = sequence.block_table, sequence.num_evicted_tokens
    start, end = start - evicted, end - evicted
    for at in range(start - start % block_size, end, block_size):
        row = blocks[at // block_size] * block_size - at
        yield from range(row + max(start, at), row + min(end, at + block_size))
