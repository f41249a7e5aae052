"""Which part of a checkpoint's tensor one tensor-parallel rank holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inference_pio.errors import ConfigError, PluginError
from inference_pio.loader.patterns import PatternTable
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import ShardPlan, ShardRule


@dataclass(frozen=True)
class Cut:
    """Ranges (start, length) along `dim`, side by side; `zeros` where this rank holds zeros in the tensor's place."""

    dim: int
    ranges: tuple[tuple[int, int], ...]
    zeros: bool = False

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[: self.dim], sum(length for _, length in self.ranges), *shape[self.dim + 1 :])

    def apply(self, tensor: Tensor) -> Tensor:
        """A view of the part where it is one range, else a copy; or zeros."""
        if self.zeros:
            return torch.zeros_like(tensor)
        pieces = [tensor.narrow(self.dim, *entries) for entries in self.ranges]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=self.dim)


class Sharding:
    """A shard plan from one rank's place.

    Raises:
        ConfigError: the plan does not allow that many ranks.
    """

    def __init__(self, plan: ShardPlan, shard: Shard) -> None:
        if shard.size > 1 and shard.size not in plan.legal_sizes:
            sizes = ", ".join(map(str, plan.legal_sizes))
            raise ConfigError(f"this model cannot be divided over {shard.size} ranks; possible: {sizes}")
        self._shard = shard
        self._rules = PatternTable(plan.rules)

    def cut(self, name: str, shape: tuple[int, ...]) -> Cut | None:
        """The part of tensor `name` that this rank holds; None where it is all of it.

        "column" and "vocab" divide dimension 0, of biases too. "row" divides the last dimension; a bias of one
        dimension belongs to the sum of all ranks' results, so that rank 0 holds it and the others hold zeros. "unit"
        leaves all rows or none.

        Raises:
            PluginError: the plan has no rule for the name, or the rule does not fit the shape.
        """
        if self._shard.size == 1:
            return None
        found = self._rules.find(name)
        if found is None:
            raise PluginError(f"the shard plan has no rule for {name}")
        rule = found[0]
        if rule.kind == "replicate" or not shape:
            return None
        if rule.kind == "row" and len(shape) == 1:
            return Cut(0, ((0, shape[0]),), zeros=True) if self._shard.rank else None
        if rule.kind == "unit":
            return self._whole_or_nothing(name, rule)
        dim = len(shape) - 1 if rule.kind == "row" else 0
        parts = rule.parts or (shape[dim],)
        if sum(parts) != shape[dim]:
            raise PluginError(
                f"the shard plan divides {sum(parts)} entries of {name}, which has {shape[dim]}"
            )
        ranges, first = [], 0
        for part in parts:
            start, length = self._range(name, rule, part)
            ranges.append((first + start, length))
            first += part
        return Cut(dim, tuple(ranges))

    def _whole_or_nothing(self, name: str, rule: ShardRule) -> Cut | None:
        first, count = self._range(name, replace(rule, kind="column"), rule.units)
        return None if first <= rule.unit < first + count else Cut(0, ((0, 0),))

    def _range(self, name: str, rule: ShardRule, total: int) -> tuple[int, int]:
        units, size, rank = rule.units, self._shard.size, self._shard.rank
        if rule.kind == "vocab":
            units = total
        if total % units:
            raise PluginError(f"the shard plan divides the {total} entries of {name} into {units} units")
        if units % size == 0:
            return rank * (total // size), total // size
        if rule.kind == "column" and size % units == 0:
            return rank // (size // units) * (total // units), total // units
        raise PluginError(f"the shard plan cannot divide the {units} units of {name} over {size} ranks")
