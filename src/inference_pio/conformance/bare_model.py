"""A plugin's model run without the engine, so that the model is what is tested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference_pio.cache.specs import state_specs
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.raw_config import raw_config
from inference_pio.loader.weights import load_weights
from inference_pio.parallel import Shard
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.batch import ForwardBatch

BLOCK_SIZE = 16
_CPU = torch.device("cpu")


class BareModel:
    """Runs pieces of sequences in whatever order and company a test wants.

    Args:
        sequences: how many there may be; blocks of one sequence lie apart in the cache.
        max_tokens: the longest sequence.
        options: configuration fields to change.
        dtype: of weights, activations and caches.
    """

    def __init__(
        self,
        plugin: ModelPlugin,
        path: Path,
        *,
        sequences: int = 1,
        max_tokens: int = 256,
        shard: Shard | None = None,
        options: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shard = shard or Shard()
        with open_checkpoint(path) as checkpoint:
            stated: Any = plugin.read_config(raw_config(checkpoint, path), str(path))
            self.config = replace(stated, **(options or {}))
            with torch.device("meta"):
                model = plugin.build_model(self.config, shard)
            load_weights(
                model,
                checkpoint,
                plugin.weight_map(self.config),
                shard_plan=plugin.shard_plan(self.config),
                shard=shard,
                dtype=dtype,
                device=_CPU,
                progress=None,
            )
        self.model = model.eval()
        for step in plugin.optimizations(self.config):
            self.model = step.apply(self.model, self.config)
        self.specs = plugin.cache_specs(self.config, dtype, shard)
        self._sequences, self._blocks = sequences, -(-max_tokens // BLOCK_SIZE)
        self.caches = [
            spec.allocate(sequences * self._blocks, BLOCK_SIZE, sequences, _CPU) for spec in self.specs
        ]
        self.keeps_state = bool(state_specs(self.specs))
        self.restart()

    def reserve(self, num_drafts: int) -> None:
        """Make room for drafts where layers keep state."""
        for state in self._states:
            state.reserve(num_drafts)

    def restart(self) -> None:
        """Forget all sequences."""
        self._lengths = [0] * self._sequences
        self._drafted: list[tuple[int, int]] = []
        for cache in self.caches:
            # Whoever reads a token that was never written, or a state that another sequence left, is found out.
            for tensor in tensors_of(cache):
                tensor.fill_(float("nan"))

    def run(
        self, pieces: Sequence[tuple[int, Sequence[int]]], drafts: Sequence[int] | None = None
    ) -> list[Tensor]:
        """One step: (sequence number, its next tokens) each; logits [tokens, vocab_size] of every token of each.

        Of each piece the last `drafts` tokens are drafts, to be followed by `accept`.
        """
        batch = self.batch(pieces, drafts)
        with torch.inference_mode():
            logits: Tensor = self.model(batch, self.caches)
        return list(logits.split([len(token_ids) for _, token_ids in pieces]))

    def accept(self, counts: Sequence[int]) -> None:
        """The first so many drafts of each piece of the last step count; the others are forgotten."""
        first = 0
        for (number, drafted), accepted in zip(self._drafted, counts, strict=True):
            self._lengths[number] -= drafted - accepted
            begun = first
            for part in (accepted // 2, accepted - accepted // 2):  # as at a block's border
                for state in self._states if part else ():
                    state.commit(number, begun, part)
                begun += part
            first += drafted

    def batch(
        self, pieces: Sequence[tuple[int, Sequence[int]]], drafts: Sequence[int] | None = None
    ) -> ForwardBatch:
        """The step as the model sees it; it counts as run."""
        rows = [len(token_ids) for _, token_ids in pieces]
        starts = [self._lengths[number] for number, _ in pieces]
        spans = [range(start, start + count) for start, count in zip(starts, rows, strict=True)]
        tables = [self._table(number) for number, _ in pieces]
        slots = [
            table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
            for table, span in zip(tables, spans, strict=True)
            for position in span
        ]
        self._drafted = [(number, drafts[i] if drafts else 0) for i, (number, _) in enumerate(pieces)]
        for (number, _), span in zip(pieces, spans, strict=True):
            self._lengths[number] = span.stop
        return ForwardBatch(
            token_ids=torch.tensor([token_id for _, token_ids in pieces for token_id in token_ids]),
            positions=torch.tensor([position for span in spans for position in span]),
            query_start=torch.tensor([0, *accumulate(rows)], dtype=torch.int32),
            seq_lens=torch.tensor([span.stop for span in spans], dtype=torch.int32),
            block_tables=torch.tensor(tables, dtype=torch.int32),
            slot_mapping=torch.tensor(slots),
            state_slots=torch.tensor([number for number, _ in pieces]) if self.keeps_state else None,
            last_token=torch.arange(sum(rows)),
            max_query_len=max(rows),
            max_seq_len=max(span.stop for span in spans),
            drafts=torch.tensor(drafts, dtype=torch.int32) if drafts and self.keeps_state else None,
        )

    def prefill(self, token_ids: Sequence[int], chunk: int | None = None) -> Tensor:
        """Logits [tokens, vocab_size] of one sequence after a restart, `chunk` tokens at a time."""
        self.restart()
        size = chunk or len(token_ids)
        parts = [token_ids[first : first + size] for first in range(0, len(token_ids), size)]
        return torch.cat([self.run([(0, part)])[0] for part in parts])

    @property
    def _states(self) -> list[Any]:
        pairs = zip(self.specs, self.caches, strict=True)
        return [cache for spec, cache in pairs if spec.bytes_per_sequence()]

    def _table(self, number: int) -> list[int]:
        return [block * self._sequences + number for block in reversed(range(self._blocks))]


def tensors_of(cache: Any) -> Iterator[Tensor]:
    """Every tensor that a layer's cache holds, however it is put together."""
    if isinstance(cache, Tensor):
        yield cache
    elif is_dataclass(cache):
        for entry in fields(cache):
            yield from tensors_of(getattr(cache, entry.name))
    elif isinstance(cache, (tuple, list)):
        for entry in cache:
            yield from tensors_of(entry)
