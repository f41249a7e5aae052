"""Filling a model with a checkpoint, tensor by tensor and strictly both ways."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.errors import CheckpointMismatch
from inference_pio.layers import Linear
from inference_pio.layers.protocol import FinishesLoading, KeepsDtype, TakesQuantized, TakesStacks
from inference_pio.loader.assemblies import Assembly, StackAssembly
from inference_pio.loader.converted import changes_values, restored, unpermuted
from inference_pio.loader.packing import NOTHING_PACKED, Packing
from inference_pio.loader.page_file import PageFile
from inference_pio.loader.readings import Reading, plan_readings, without
from inference_pio.loader.sharding import Sharding
from inference_pio.loader.stack_file import StackFile
from inference_pio.loader.tensor_info import Checkpoint, CheckpointHeader
from inference_pio.loader.weight_plan import Piece, Shape, Target, WeightPlan, plan_weights
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import ShardPlan, WeightMap
from inference_pio.plugin.runtime import Progress

_WHOLE_MODEL = ShardPlan({}, (1,))


def audit(
    parameters: Mapping[str, Shape],
    header: CheckpointHeader,
    weight_map: WeightMap,
    *,
    shard_plan: ShardPlan = _WHOLE_MODEL,
    shard: Shard | None = None,
) -> WeightPlan:
    """Hold names and shapes against each other, without reading data: `header` may be an index alone.

    Args:
        parameters: of the model as `shard` holds it, tied ones included (`named_parameters(remove_duplicate=False)`).

    Returns:
        Which piece of which tensor goes where.

    Raises:
        CheckpointMismatch: with every parameter that is missing and every tensor that is unused or of another shape.
        ModelFileError, PluginError, ConfigError: as `plan_weights` and `Sharding` raise them.
    """
    return plan_weights(parameters, header, weight_map, Sharding(shard_plan, shard or Shard()))


def load_weights(
    model: nn.Module,
    checkpoint: Checkpoint,
    weight_map: WeightMap,
    *,
    shard_plan: ShardPlan,
    shard: Shard,
    dtype: torch.dtype,
    device: torch.device,
    packing: Packing = NOTHING_PACKED,
    stacks: StackFile | None = None,
    pages: PageFile | None = None,
    ahead: int = 0,
    progress: Progress | None = None,
) -> None:
    """Fill a model that was built on the meta device; each tensor is read once, and given up before the next.

    Parameters become frozen ones of `dtype` on `device` in memory of their own (`KeepsDtype` modules choose their own
    type); those that `packing` names stay in blocks. Beside the model at most one tensor of the checkpoint is in
    memory, in the parameter's type, and those that are read `ahead` of the one that is put in its place. A module's
    `finish_loading` runs as soon as all its parameters are there; of modules that share one, after everything.

    Args:
        stacks: where stacks lie that stay in blocks; None: in memory.
        pages: where layers lie that are not all in memory at once; None: in memory.
        progress: called with (bytes read, bytes of all tensors to read, "loading").

    Raises:
        CheckpointMismatch: names, shapes or tied values differ; names and shapes before any data is read.
        ModelFileError: data cannot be read.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in _parameters(model)}
    plan = plan_weights(shapes, checkpoint, weight_map, Sharding(shard_plan, shard))
    _Loading(model, checkpoint, plan, packing, dtype, device, progress, stacks, pages, ahead).run()


class _Loading:
    """One run of `load_weights`."""

    def __init__(
        self,
        model: nn.Module,
        checkpoint: Checkpoint,
        plan: WeightPlan,
        packing: Packing,
        dtype: torch.dtype,
        device: torch.device,
        progress: Progress | None,
        stacks: StackFile | None,
        pages: PageFile | None,
        ahead: int,
    ) -> None:
        self._model, self._checkpoint, self._plan, self._packing = model, checkpoint, plan, packing
        self._dtype, self._device, self._progress = dtype, device, progress
        self._finishing = _Finishing(model, plan, device, dtype)
        self._started: dict[str, Assembly] = {}
        self._blocks: dict[str, dict[int, ops.Blocks]] = {}
        self._stacks: dict[str, StackAssembly] = {}
        self._slab = ops.Slab()
        self._file, self._stacked = stacks, stacks or self._slab
        self._readings = plan_readings(plan, checkpoint.tensors)
        self._pages, self._paged = pages, pages.names if pages is not None else frozenset()
        self._ahead = ahead
        if stacks is not None:
            self._lay_out(stacks)
        if pages is not None and pages.complete:
            self._readings = without(self._readings, pages.names)
            for name in pages.names:
                self._is_paged(name)
        self._total = sum(reading.nbytes for reading in self._readings)
        self._done = 0

    def run(self) -> None:
        for reading, found in self._read_all():
            for (target, piece), value in zip(reading.uses, found, strict=True):
                self._put(target, piece, value)
            self._done += reading.nbytes
            if self._progress is not None:
                self._progress(self._done, self._total, "loading")
        for name, other in self._plan.tied.items():
            self._share(name, other)
        if self._file is not None:
            self._file.finish()
        if self._pages is not None:
            self._pages.finish(self._model, self._plan, self._packing, self._dtype)
        self._finishing.finish_rest()

    def _lay_out(self, stacks: StackFile) -> None:
        """Every stack in the plan's order, whatever order they are read in; those that are there are not read."""
        names = self._packing.stacked(self._plan)
        self._stacks = {
            name: StackAssembly(self._plan.targets[name], self._packing, stacks) for name in names
        }
        if stacks.complete:
            self._readings = without(self._readings, names)
            for name in names:
                self._take_stack(name)

    def _take_stack(self, name: str) -> None:
        owner, leaf = _owner(self._model, name)
        assert isinstance(owner, TakesStacks)
        owner.take_stack(leaf, self._stacks.pop(name).stack)
        self._finishing.filled(name)

    def _is_paged(self, name: str) -> None:
        """The parameter is in the file, from which its module is given it when all are."""
        owner, _ = _owner(self._model, name)
        assert isinstance(owner, Linear)
        owner.weight = None
        self._finishing.filled(name)

    def _read_all(self) -> Iterator[tuple[Reading, list[Tensor | ops.Blocks]]]:
        """What was read for each of its uses; those ahead are read while one is put in its place."""
        if not self._ahead:
            for reading in self._readings:
                yield reading, self._read(reading)
            return
        ahead = self._ahead
        with ThreadPoolExecutor(1) as reader:
            coming = deque([reader.submit(self._read, reading) for reading in self._readings[:ahead]])
            for reading, after in zip_longest(self._readings, self._readings[ahead:]):
                found = coming.popleft().result()
                if after is not None:
                    coming.append(reader.submit(self._read, after))
                yield reading, found

    @torch.inference_mode()
    def _read(self, reading: Reading) -> list[Tensor | ops.Blocks]:
        """One tensor, or some entries of it, as each of its uses wants it."""
        kinds = [self._kind_of(target, piece) for target, piece in reading.uses]
        heads = self._plan.heads.get(reading.source)
        made: dict[str | None, Tensor | ops.Blocks] = {}
        for kind in dict.fromkeys(kinds):
            if kind is not None:
                blocks = self._packing.read(self._checkpoint, reading.source, kind, reading.part)
                made[kind] = replace(blocks, data=unpermuted(blocks.data, heads)) if heads else blocks
                continue
            dtypes = {
                self._dtype_of(target.name)
                for (target, _), k in zip(reading.uses, kinds, strict=True)
                if k is None
            }
            dtype = (
                torch.float32
                if changes_values(self._plan, reading.source) or len(dtypes) > 1
                else dtypes.pop()
            )
            made[None] = restored(
                self._checkpoint.read(reading.source, dtype, reading.part), self._plan, reading.source
            )
        return [
            _entry(made[kind], piece, reading) for kind, (_, piece) in zip(kinds, reading.uses, strict=True)
        ]

    def _kind_of(self, target: Target, piece: Piece) -> str | None:
        kinds = self._packing.kinds.get(target.name)
        return None if kinds is None else kinds[target.place(piece)]

    def _share(self, name: str, other: str) -> None:
        (owner, leaf), (partner, _) = _owner(self._model, name), _owner(self._model, other)
        if other in self._packing.kinds:
            assert isinstance(owner, TakesQuantized)
            assert isinstance(partner, TakesQuantized)
            owner.packed = partner.packed
            setattr(owner, leaf, None)
        else:
            setattr(owner, leaf, self._model.get_parameter(other))

    def _put(self, target: Target, piece: Piece, value: Tensor | ops.Blocks) -> None:
        if isinstance(value, ops.Blocks):
            return self._put_blocks(target, piece, value)
        return self._put_dense(target, piece, value)

    def _put_blocks(self, target: Target, piece: Piece, blocks: ops.Blocks) -> None:
        if piece.rows is not None:
            blocks = replace(blocks, data=blocks.data.narrow(0, *piece.rows))
        if target.stacked:
            self._put_in_stack(target, piece, blocks)
            return
        parts = self._blocks.setdefault(target.name, {})
        parts[target.place(piece)] = blocks
        if len(parts) < len(target.pieces):
            return
        whole = [parts[order] for order in range(len(parts))]
        del self._blocks[target.name]
        if self._pages is not None and target.name in self._paged:
            self._pages.put_blocks(target.name, whole)
            self._is_paged(target.name)
            return
        owner, _ = _owner(self._model, target.name)
        assert isinstance(owner, TakesQuantized)
        owner.take_quantized(whole, self._slab)
        self._finishing.filled(target.name)

    def _put_in_stack(self, target: Target, piece: Piece, blocks: ops.Blocks) -> None:
        """Each part is packed where it belongs as soon as it is read: none of them waits for the others."""
        if target.name not in self._stacks:
            self._stacks[target.name] = StackAssembly(target, self._packing, self._stacked)
        assembly = self._stacks[target.name]
        assembly.put(piece, blocks)
        if not assembly.left:
            self._take_stack(target.name)

    def _put_dense(self, target: Target, piece: Piece, tensor: Tensor) -> None:
        part = tensor if piece.rows is None else tensor.narrow(0, *piece.rows)
        part = part if piece.cut is None else piece.cut.apply(part)
        if target.name not in self._started:
            self._started[target.name] = Assembly(target, self._dtype_of(target.name), self._device)
        assembly = self._started[target.name]
        assembly.put(piece, part)
        if assembly.is_complete:
            self._assign(target.name, self._started.pop(target.name).value())

    def _assign(self, name: str, value: Tensor) -> None:
        if (other := self._plan.tied.get(name)) is not None:
            if not torch.equal(value, self._model.get_parameter(other)):
                raise CheckpointMismatch(
                    self._checkpoint.path, unused=[f"{name} (tied to {other}, but holds other values)"]
                )
            return
        if self._pages is not None and name in self._paged:
            self._pages.put_dense(name, value)
            self._is_paged(name)
            return
        owner, leaf = _owner(self._model, name)
        setattr(owner, leaf, nn.Parameter(value, requires_grad=False))
        self._finishing.filled(name)

    def _dtype_of(self, name: str) -> torch.dtype:
        owner, _ = _owner(self._model, name)
        return owner.parameter_dtype if isinstance(owner, KeepsDtype) else self._dtype


class _Finishing:
    """Calls `finish_loading` of every module that has it, once, as early as its parameters allow."""

    def __init__(self, model: nn.Module, plan: WeightPlan, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        shared = plan.tied.keys() | set(plan.tied.values())
        self._waiting: dict[str, tuple[FinishesLoading, set[str]]] = {}
        self._last: list[FinishesLoading] = []
        for prefix, module in reversed(list(model.named_modules())):  # inner modules before those around them
            names = {f"{prefix}.{name}".lstrip(".") for name, _ in _parameters(module)}
            if not isinstance(module, FinishesLoading):
                continue
            if not names or names & shared:
                self._last.append(module)
            else:
                self._waiting[prefix] = (module, names)

    def filled(self, parameter: str) -> None:
        """Note one parameter; finish the modules around it whose last one it was, the innermost first."""
        path = parameter.split(".")
        for depth in range(len(path) - 1, -1, -1):
            prefix = ".".join(path[:depth])
            if (waiting := self._waiting.get(prefix)) is None:
                continue
            module, names = waiting
            names.discard(parameter)
            if not names:
                del self._waiting[prefix]
                module.finish_loading(self._device, self._dtype)

    def finish_rest(self) -> None:
        for module in self._last:
            module.finish_loading(self._device, self._dtype)


def _parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return module.named_parameters(remove_duplicate=False)


def _entry(value: Tensor | ops.Blocks, piece: Piece, reading: Reading) -> Tensor | ops.Blocks:
    """Of several matrices that were read at once, the piece's own."""
    if piece.entry is None or reading.part is None:
        return value
    first, count = reading.part
    number = piece.entry - first
    if isinstance(value, Tensor):
        return value[number]
    rows = value.data.shape[0] // count
    return replace(value, data=value.data.narrow(0, number * rows, rows))


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
