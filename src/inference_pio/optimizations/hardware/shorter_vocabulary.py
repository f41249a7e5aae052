"""Rows of the head that a caller never wants are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from inference_pio import ops
from inference_pio.errors import ConfigError
from inference_pio.layers import VocabParallelHead
from inference_pio.optimizations.hardware.surgery import Surgery
from inference_pio.optimizations.technique import Situation, Standing, active, dormant, not_applicable
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import serving_of

LAST = 1024  # rows that stay at the end of a vocabulary, where special tokens are
_LEAST = 256


class _Removed(NamedTuple):
    head: VocabParallelHead
    packed: ops.PackedWeight | ops.QuantizedWeight
    rows: int


class ShorterVocabulary(Surgery):
    """Logits of the first `keep_vocabulary` tokens and of the last thousand; the others become less likely than any of
    them. Tokenizers number tokens by how often they occur, so that the first ones are the common ones.
    """

    name = "shorter_vocabulary"
    title = "shorter vocabulary"
    exact = False
    conflicts = ("tensor_parallelism",)
    on: ClassVar[Mapping[str, Any]] = {"keep_vocabulary": 32_000}
    shows_on = "decode"

    def standing(self, at: Situation) -> Standing:
        keep, size = at.options.keep_vocabulary, at.config.vocab_size
        head = _head(at.model)
        if head is None:
            return not_applicable("its head is of another kind")
        if keep is None:
            return dormant("keep_vocabulary says how many tokens stay")
        if keep < _LEAST:
            raise ConfigError(
                f"keep_vocabulary {keep}: at least {_LEAST} tokens, those of single bytes, must stay"
            )
        if not at.packed and (at.dtype == torch.bfloat16 and at.device.type == "cpu"):
            return not_applicable(
                "bfloat16 products lie in a layout that cannot be cut: dtype float32, or blocks"
            )
        if keep + LAST >= size:
            return dormant(f"{keep} + {LAST} tokens are the whole vocabulary of {size}")
        return active(f"{keep + LAST:,} of {size:,} tokens")

    def asked_by(self, options: RuntimeOptions) -> str | None:
        return f"keep_vocabulary {options.keep_vocabulary}" if options.keep_vocabulary is not None else None

    def cut(self, model: nn.Module, config: Any) -> _Removed | None:
        head, serving = _head(model), serving_of(model)
        assert head is not None, "its standing says that it has one"
        assert head.packed is not None, "weights are loaded"
        first = serving.asked_vocabulary // ops.GROUP_ROWS * ops.GROUP_ROWS
        start = (config.vocab_size - LAST) // ops.GROUP_ROWS * ops.GROUP_ROWS
        removed = _Removed(head, head.packed, start - first)
        head.packed = ops.rows_of(head.packed, ((0, first), (start, config.vocab_size)))
        serving.vocabulary = (first, start)
        return removed

    def restore(self, model: nn.Module, removed: _Removed) -> None:
        removed.head.packed = removed.packed
        serving_of(model).vocabulary = None

    def describe(self, removed: _Removed) -> dict[str, Any]:
        return {"rows": removed.rows, "of": removed.packed.out_features}


def _head(model: nn.Module) -> VocabParallelHead | None:
    heads = (module for module in model.modules() if isinstance(module, VocabParallelHead))
    return next(heads, None)
