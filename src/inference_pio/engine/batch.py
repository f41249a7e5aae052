"""From scheduled sequences to the tensors of one step."""

from __future__ import annotations

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
    for each of them besides, and is not computed beyond them. `tables` is `BlockManager.tables`.
    The work per token is numpy's; Python's is per sequence.
    """
    flat: list[int] = []
    meta: list[tuple[int, int, int]] = []
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
                num_scheduled_tokens += len(guesses)
        meta.append((sequence.slot, start, num_scheduled_tokens))
    slots, starts, counts = np.array(meta, dtype=np.int64).T
    query_start = np.zeros(len(meta) + 1, dtype=np.int32)
    np.cumsum(counts, out=query_start[1:])
    positions = np.arange(len(flat)) + np.repeat(starts - query_start[:-1], counts)
    block_of_token = tables[np.repeat(slots, counts), positions // block_size].astype(np.int64)
    seq_lens = (starts + counts).astype(np.int32)
    max_seq_len = int(seq_lens.max())
    num_columns = -(-max_seq_len // block_size)

    is_cpu = device.type == "cpu"  # of a step's milliseconds even a `to` without effect takes some

    def tensor(values: NDArray[Any]) -> Tensor:
        made = torch.from_numpy(values)
        return made if is_cpu else made.to(device, non_blocking=True)

    batch = ForwardBatch(
        token_ids=tensor(np.array(flat, dtype=np.int64)),
        positions=tensor(positions),
        query_start=tensor(query_start),
        seq_lens=tensor(seq_lens),
        block_tables=tensor(tables[slots, :num_columns]),
        slot_mapping=tensor(block_of_token * block_size + positions % block_size),
        state_slots=tensor(slots.copy()) if with_state else None,
        last_token=tensor(np.array(last, dtype=np.int64)),
        max_query_len=int(counts.max()),
        max_seq_len=max_seq_len,
    )
    return batch, sampled
