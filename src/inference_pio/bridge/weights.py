"""Names of a checkpoint to parameters of Transformers' modules, under the renamings that Transformers itself states.

Checkpoints are written with older names than those of the modules: experts one by one, say, which the modules stack.
Transformers keeps how the two relate (`conversion_mapping.py`), in patterns; here they are followed backwards, from
each parameter to the names that checkpoints may have for it, so that loading stays strict both ways.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    PrefixChange,
    WeightConverter,
    WeightRenaming,
)

from inference_pio.bridge.foreign import refuse
from inference_pio.plugin.facts import WeightMap

PREFIX = "network."
# Buffers that attention modules once stored in checkpoints, and that carry nothing.
_OLD_BUFFERS = ("rotary_emb.inv_freq", "bias", "masked_bias")


def weight_map(network: Any, attention: Iterable[str], path: str) -> WeightMap:
    """For a network that becomes the module `network` of ours.

    Args:
        attention: names of the modules that attend.

    Raises:
        UnsupportedArchitecture: Transformers computes one of the parameters from a checkpoint in another way than by
            stacking and concatenating.
    """
    return _Names(network, path).map(attention)


class _Names:
    def __init__(self, network: Any, path: str) -> None:
        self._network, self._path = network, path
        self._parameters = [name for name, _ in network.named_parameters(remove_duplicate=False)]
        found = get_model_conversion_mapping(network, add_legacy=False)
        self._converters = [
            (one, one.reverse_transform()) for one in found if isinstance(one, WeightConverter)
        ]
        self._renamings = [
            one.reverse_transform()
            for one in reversed(found)
            if isinstance(one, WeightRenaming) and not isinstance(one, PrefixChange)
        ]
        self._rename: dict[str, str] = {}
        self._merge: dict[str, tuple[str, ...]] = {}
        self._stack: dict[str, str] = {}

    def map(self, attention: Iterable[str]) -> WeightMap:
        for name in self._parameters:
            self._called(name, name)
        for name in self._parameters:
            self._convert(name)
            self._called(self._older(name), name)
        base = f"{self._network.base_model_prefix}."
        for name, to in list(
            self._rename.items()
        ):  # a checkpoint of the model without its head has no prefix
            self._rename.setdefault(name.removeprefix(base), to)
        unknown = {f"{module}.{old}" for module in attention for old in _OLD_BUFFERS} - set(self._parameters)
        unknown |= {name for name, _ in self._network.named_non_persistent_buffers()}
        drop = unknown | {name.removeprefix(base) for name in unknown}
        return WeightMap(
            rename=self._rename,
            merge=self._merge,
            stack=self._stack,
            tie={
                PREFIX + name: PREFIX + other for name, other in self._network.all_tied_weights_keys.items()
            },
            drop=tuple(sorted(drop)),
        )

    def _called(self, old: str, name: str) -> None:
        self._rename.setdefault(old, PREFIX + name)

    def _older(self, name: str) -> str:
        for renaming in self._renamings:
            name, _ = renaming.rename_source_key(name)
        return name

    def _convert(self, name: str) -> None:
        """Parts of a parameter that checkpoints hold one by one: stacked experts, and projections side by side."""
        for converter, backwards in self._converters:
            whole, matched = backwards.rename_source_key(name)
            if matched is None:
                continue
            kinds = [type(operation) for operation in converter.operations]
            first, *others = backwards.target_patterns
            parts = [whole, *(whole.replace(first, other) for other in others)]
            if len(set(parts)) != len(parts) or not _is_stack(converter.operations, parts):
                raise refuse(
                    self._path,
                    f"{name} is made from a checkpoint's {' and '.join(parts)} by "
                    f"{', '.join(kind.__name__ for kind in kinds)}",
                )
            for part in parts:
                self._called(self._older(part), part)
            each = PREFIX + whole.rpartition(".")[0] + ".merged"
            self._stack[PREFIX + name] = each
            self._merge[each] = tuple(PREFIX + part for part in parts)
            return


def _is_stack(operations: list[Any], parts: list[str]) -> bool:
    """Whether parts with a number each are stacked by it along a new first dimension, and then put side by side."""
    stack, *rest = operations
    if not isinstance(stack, MergeModulelist) or stack.dim != 0:
        return False
    if not all(part.split(".").count("*") == 1 for part in parts):
        return False
    if not rest:
        return len(parts) == 1
    return len(rest) == 1 and isinstance(rest[0], Concatenate) and rest[0].dim == 1
