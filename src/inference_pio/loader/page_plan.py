"""Which layers of a model stay in memory and which are read from the disk each time, computed from names and shapes.

A model uses its layers in turn, over and over. What was used last is then wanted last, so that a cache of the last
ones would never have what comes next. Some layers are therefore kept for good, and the others pass through a window
of two: one in use, one being read. Those that are read lie evenly among those that stay, whose products give the disk
time.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from inference_pio import ops
from inference_pio.layers import Linear
from inference_pio.loader.packing import Packing
from inference_pio.loader.weight_plan import WeightPlan

_WINDOW = 2  # layers
_ALIGNMENT = 64
_LAYER = re.compile(r"(?P<stack>.*?)\.(?P<number>\d+)\.")


@dataclass(frozen=True)
class PagedLayer:
    """weights  parameter -> its first byte within the layer and its bytes, in the model's order
    nbytes   whole pages
    """

    weights: dict[str, tuple[int, int]]
    nbytes: int

    @property
    def weight_bytes(self) -> int:
        """What the weights take where they lie side by side."""
        return sum(size for _, size in self.weights.values())

    @classmethod
    def of(cls, sizes: dict[str, int]) -> PagedLayer:
        weights, used = {}, 0
        for name, size in sizes.items():
            weights[name] = used, size
            used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return cls(weights, -(-used // ops.PAGE) * ops.PAGE)


@dataclass(frozen=True)
class PagePlan:
    """layers    all that lie in the file, in the order in which the model uses them
    streamed  numbers of those that pass through the window; the others stay
    """

    layers: tuple[PagedLayer, ...]
    streamed: tuple[int, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(name for layer in self.layers for name in layer.weights)

    @property
    def disk_bytes(self) -> int:
        """What is read for one step, and not in memory between two."""
        return sum(self.layers[number].nbytes for number in self.streamed)

    @property
    def window_bytes(self) -> int:
        return _WINDOW * max((self.layers[number].nbytes for number in self.streamed), default=0)

    @property
    def saved_bytes(self) -> int:
        """How much less memory it is than all weights side by side."""
        return sum(layer.weight_bytes for layer in self.layers) - self.memory_bytes

    @property
    def memory_bytes(self) -> int:
        """Of the layers that stay, and of the window."""
        return sum(layer.nbytes for layer in self.layers) - self.disk_bytes + self.window_bytes

    def places(self) -> list[tuple[int, int]]:
        """Of each layer: where it lies in memory, and its slot; the window's slots come first."""
        width = self.window_bytes // _WINDOW
        places, free, slot = [], self.window_bytes, _WINDOW
        turn = {number: order % _WINDOW for order, number in enumerate(self.streamed)}
        for number, layer in enumerate(self.layers):
            if number in turn:
                places.append((turn[number] * width, turn[number]))
            else:
                places.append((free, slot))
                free, slot = free + layer.nbytes, slot + 1
        return places


def pageable_layers(
    model: nn.Module, weights: WeightPlan, packing: Packing, dtype: torch.dtype
) -> tuple[PagedLayer, ...]:
    """Layers whose weights may come and go; empty where there are too few.

    They are those of plain linear maps, in blocks or as numbers, row by row: oneDNN's own order of bfloat16 cannot be
    laid where one wants it, and gives the same products. Norms, biases, routers and the like are small and stay. Of
    several stacks of layers the one with the most weights is meant: the encoder of a model that sees is not used in
    every step.
    """
    stacks: dict[str, dict[int, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    tied = weights.tied.keys() | set(weights.tied.values())
    for name, target in weights.targets.items():
        found, owner = _LAYER.match(name), model.get_submodule(name.rpartition(".")[0])
        if found is None or name in tied or target.stacked or not _is_plain(owner, name):
            continue
        dense = model.get_parameter(name).numel() * dtype.itemsize
        size = packing.nbytes(target) if name in packing.kinds else dense
        stacks[found["stack"]][int(found["number"])][name] = size
    largest = max(
        stacks.values(), key=lambda stack: sum(sum(sizes.values()) for sizes in stack.values()), default={}
    )
    layers = tuple(PagedLayer.of(largest[number]) for number in sorted(largest))
    return layers if len(layers) > _WINDOW else ()


def plan_pages(layers: Sequence[PagedLayer], room: int) -> PagePlan:
    """As few layers on the disk as `room` bytes of memory for all of them allow; at most all of them, whatever it is.

    An even number, where there is one: the first one then has another place than the last, and is read meanwhile.
    """
    plan = PagePlan(tuple(layers), ())
    counts = [count for count in range(_WINDOW + 1, len(layers)) if count % _WINDOW == 0]
    for count in (*counts, len(layers)):
        if plan.memory_bytes <= room:
            break
        plan = PagePlan(
            tuple(layers), tuple((2 * turn + 1) * len(layers) // (2 * count) for turn in range(count))
        )
    return plan


def _is_plain(owner: nn.Module, name: str) -> bool:
    """Whether nothing but `Linear` itself decides what becomes of the weight."""
    if not isinstance(owner, Linear) or not name.endswith(".weight"):
        return False
    kind = type(owner)
    return (kind.take_quantized, kind.finish_loading) == (Linear.take_quantized, Linear.finish_loading)
