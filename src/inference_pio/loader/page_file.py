"""The weights of layers in a file of the model cache, as the kernels read them, and a model that is run from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.errors import ModelFileError
from inference_pio.layers import Linear
from inference_pio.loader.packing import Packing
from inference_pio.loader.page_plan import PagePlan
from inference_pio.loader.stack_file import HEADER_BYTES, StackFile, stack_key
from inference_pio.loader.weight_plan import WeightPlan


class PageFile:
    """The file of a plan's layers, all of them whichever are streamed: another budget needs no other file.

    names     parameters that lie in it
    complete  it was there: nothing is to be put into it
    """

    def __init__(self, path: Path, key: str, plan: PagePlan, require_room: Callable[[int], None]) -> None:
        """Open it, or begin it: it has its name only when it is whole.

        Raises:
            ResourceError: the disk has no room for it, or another process is writing it.
        """
        sizes = [layer.nbytes for layer in plan.layers]
        counts = [ops.num_sums(size) for size in sizes]
        self._path, self._plan = path, plan
        self._file = StackFile(path, key, [*sizes, 8 * sum(counts)], require_room, holds="paged weights")
        self.complete, self.names = self._file.complete, plan.names
        self._units = [self._file.take(size) for size in sizes]
        self._sums = self._file.take(8 * sum(counts)).view(torch.int64)
        self._sums_of = self._sums.split(counts)
        self._missing = [set(layer.weights) for layer in plan.layers]
        self._number = {name: number for number, layer in enumerate(plan.layers) for name in layer.weights}

    def put_blocks(self, name: str, pieces: Sequence[ops.Blocks]) -> None:
        """The weight of that parameter, its pieces from the first row down."""
        ops.pack_quantized(pieces, _Place(self._place(name)))
        self._filled(name)

    def put_dense(self, name: str, value: Tensor) -> None:
        self._place(name).copy_(value.detach().contiguous().flatten().view(torch.uint8))
        self._filled(name)

    def finish(self, model: nn.Module, weights: WeightPlan, packing: Packing, dtype: torch.dtype) -> None:
        """Everything is in the file: read the layers that stay, and give the model its weights.

        Raises:
            ModelFileError: the file cannot be read, or is not what was written.
        """
        self._file.finish()
        plan = self._plan
        offsets, at = [], HEADER_BYTES
        for layer in plan.layers:
            offsets.append(at)
            at += layer.nbytes
        units = [
            ops.PageUnit(offset, layer.nbytes, *place)
            for offset, layer, place in zip(offsets, plan.layers, plan.places(), strict=True)
        ]
        try:
            pager = ops.Pager(self._path, units, self._sums.clone())
            for number in range(len(units)):
                if number not in plan.streamed:
                    pager.enter(number)
        except (OSError, RuntimeError) as error:
            raise ModelFileError(
                self._path, str(error).partition("\n")[0].removeprefix(f"{self._path} ")
            ) from error
        for number, layer in enumerate(plan.layers):
            for name, (first, nbytes) in layer.weights.items():
                place = pager.memory.narrow(0, units[number].place + first, nbytes)
                page = ops.Page(pager, number, place) if number in plan.streamed else None
                _linear(model, name).packed = _weight(name, place, page, weights, packing, dtype)
        for number in plan.streamed:
            last = _linear(model, list(plan.layers[number].weights)[-1])
            last.register_forward_hook(_Leaving(pager, number))

    def __enter__(self) -> PageFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(None, None, None)

    def _place(self, name: str) -> Tensor:
        number = self._number[name]
        return self._units[number].narrow(0, *self._plan.layers[number].weights[name])

    def _filled(self, name: str) -> None:
        """A layer that is whole gets its checksums, and needs no memory any more."""
        number = self._number[name]
        self._missing[number].discard(name)
        if not self._missing[number]:
            self._sums_of[number].copy_(ops.unit_sums(self._units[number]))
            self._file.let_go(self._units[number])


class _Place:
    """Hands out one place."""

    def __init__(self, place: Tensor) -> None:
        self._place = place

    def take(self, nbytes: int) -> Tensor:
        return self._place.narrow(0, 0, nbytes)


class _Leaving:
    """A layer's last product is through: its place is free. Where it is not the last, the layer comes back."""

    def __init__(self, pager: ops.Pager, number: int) -> None:
        self._pager, self._number = pager, number

    def __call__(self, *_: object) -> None:
        self._pager.leave(self._number)


def page_key(plan: PagePlan, weights: WeightPlan, packing: Packing, dtype: torch.dtype, source: Path) -> str:
    """What the file depends on: the checkpoint's files as they are now, what lies where and how."""
    digest = hashlib.sha256(stack_key(weights, packing.kinds, source).encode())
    for layer in plan.layers:
        digest.update(f"{layer.nbytes} {layer.weights} {dtype}\n".encode())
    return f"inference-pio pages {digest.hexdigest()}\n"


def _linear(model: nn.Module, name: str) -> Linear:
    owner = model.get_submodule(name.rpartition(".")[0])
    assert isinstance(owner, Linear)
    return owner


def _weight(
    name: str,
    place: Tensor,
    page: ops.Page | None,
    weights: WeightPlan,
    packing: Packing,
    dtype: torch.dtype,
) -> ops.PackedWeight | ops.QuantizedWeight:
    out_features, in_features = weights.targets[name].shape
    if name not in packing.kinds:
        matrix = place.view(dtype).view(out_features, in_features)
        if page is None:
            return ops.PackedWeight(matrix, out_features, in_features, blocked=False)
        return ops.PagedWeight(ops.Page(page.pager, page.unit, matrix), out_features, in_features)
    pieces = zip(packing.kinds[name], weights.targets[name].pieces, strict=True)
    parts = ops.parts_of([(kind, piece.shape[0]) for kind, piece in pieces])
    if page is None:
        return ops.QuantizedWeight.of(place, parts, in_features)
    return ops.PagedQuantizedWeight(page, parts, in_features)
