"""From names and shapes alone: which piece of which checkpoint tensor goes where in which parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from inference_pio.errors import CheckpointMismatch, ModelFileError, PluginError
from inference_pio.loader.patterns import PatternTable, fill_in, stars
from inference_pio.loader.sharding import Cut, Sharding
from inference_pio.loader.tensor_info import CheckpointHeader
from inference_pio.plugin.facts import GGUFNames, WeightMap

Shape = tuple[int, ...]
_MOST_ENTRIES = 4096  # of a stack: a file may claim any number, and each becomes an object here


@dataclass(frozen=True)
class Piece:
    """A part of one checkpoint tensor on its way into a parameter.

    source   the checkpoint's tensor
    entry    number along dimension 0 of the tensor, where that is a stack of several
    rows     (start, length) of the part along the next dimension, before `cut` takes this rank's share
    shape    after all of them
    index    place in the stack (0 where nothing is stacked)
    order    place in the merge
    label    its name after renaming and splitting, for error messages
    """

    source: str
    entry: int | None
    rows: tuple[int, int] | None
    cut: Cut | None
    shape: Shape
    index: int
    order: int
    label: str


@dataclass(frozen=True)
class Target:
    """A parameter and its pieces, in the order in which they lie in it."""

    name: str
    shape: Shape
    stacked: bool
    pieces: tuple[Piece, ...]

    @property
    def depth(self) -> int:
        """Entries of the stack; 1 where nothing is stacked."""
        return self.shape[0] if self.stacked else 1

    def place(self, piece: Piece) -> int:
        """Its number among `pieces`."""
        return piece.index * (len(self.pieces) // self.depth) + piece.order


@dataclass
class WeightPlan:
    """targets  parameters that are filled, in the model's order (tied ones too, where the checkpoint holds them)
    tied     parameter -> the parameter that it shares storage with
    heads    checkpoint tensor -> number of heads whose rows are to be put back in order
    added    checkpoint tensor -> what is to be taken away from every value
    negated_exp  checkpoint tensors of -exp(x)
    squeezed     checkpoint tensors that lack their dimension 1
    transposed   checkpoint tensors whose matrices are turned over
    """

    targets: dict[str, Target] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    added: dict[str, float] = field(default_factory=dict)
    negated_exp: set[str] = field(default_factory=set)
    squeezed: set[str] = field(default_factory=set)
    transposed: set[str] = field(default_factory=set)


def plan_weights(
    parameters: Mapping[str, Shape], header: CheckpointHeader, weight_map: WeightMap, sharding: Sharding
) -> WeightPlan:
    """Hold a checkpoint's header against a model, both ways.

    Raises:
        CheckpointMismatch: a parameter is not filled exactly once, a tensor is not consumed exactly once, or a shape
            differs; all such names are listed.
        ModelFileError: it is a GGUF file and the architecture states no GGUF names.
        PluginError: the weight map contradicts itself or the parameters.
    """
    return _Planner(parameters, header, weight_map, sharding).plan()


class _Planner:
    def __init__(
        self,
        parameters: Mapping[str, Shape],
        header: CheckpointHeader,
        weight_map: WeightMap,
        sharding: Sharding,
    ) -> None:
        self._parameters, self._header, self._sharding = parameters, header, sharding
        self._gguf = _gguf_names(header, weight_map)
        self._gguf_rename = PatternTable(self._gguf.rename) if self._gguf else None
        self._gguf_drop = PatternTable(dict.fromkeys(self._gguf.drop if self._gguf else ()))
        self._unpermute = PatternTable(self._gguf.unpermute if self._gguf else {})
        self._subtract = PatternTable(self._gguf.subtract if self._gguf else {})
        self._negated_exp = PatternTable(dict.fromkeys(self._gguf.negated_exp if self._gguf else ()))
        self._squeezed = PatternTable(dict.fromkeys(self._gguf.squeezed if self._gguf else ()))
        self._transposed = PatternTable(dict.fromkeys(self._gguf.transposed if self._gguf else ()))
        self._rename = PatternTable(weight_map.rename)
        self._drop = PatternTable(dict.fromkeys(weight_map.drop))
        self._unstack = PatternTable(_checked_unstack(weight_map.unstack))
        self._split = PatternTable(weight_map.split)
        self._merge = weight_map.merge
        self._merged_into = PatternTable(_inverse(weight_map.merge))
        self._stacked_into = PatternTable(_stack_inverse(weight_map.stack))
        self._tie = PatternTable(weight_map.tie)
        self._pieces: dict[str, dict[tuple[int, int], Piece]] = defaultdict(dict)
        self._widths: dict[str, int] = {}
        self._stacked: set[str] = set()
        self._missing: list[str] = []
        self._unused: list[str] = []
        self._wrong_shape: list[str] = []
        self._plan = WeightPlan()

    def plan(self) -> WeightPlan:
        for name, info in self._header.tensors.items():
            self._take(name, info.shape)
        for name, shape in self._parameters.items():
            self._fill(name, shape)
        if self._missing or self._unused or self._wrong_shape:
            raise CheckpointMismatch(
                self._header.path,
                missing=self._missing,
                unused=self._unused,
                wrong_shape=self._wrong_shape,
            )
        return self._plan

    def _take(self, source: str, shape: Shape) -> None:
        """Follow one tensor through renaming, dropping, unstacking and splitting to its places."""
        name = self._common_name(source)
        if name is None:
            return
        restored = self._restored(source, name, shape)
        if restored is None:
            return
        shape = restored
        name = _mapped(self._rename, name) or name
        if self._drop.find(name) is not None:
            return
        if (unstacked := self._unstack.find(name)) is None:
            self._split_up(source, None, name, shape)
            return
        pattern, numbers = unstacked
        if not shape or shape[0] > _MOST_ENTRIES or source in self._plan.heads:
            self._wrong_shape.append(f"{source} {list(shape)} cannot be unstacked")
            return
        for entry in range(shape[0]):
            self._split_up(source, entry, fill_in(pattern, (*numbers, str(entry))), shape[1:])

    def _restored(self, source: str, name: str, shape: Shape) -> Shape | None:
        """The shape in front of what llama.cpp's converter did, which is noted; None where that cannot have been."""
        if (found := self._unpermute.find(name)) is not None:
            heads = found[0]
            if not shape or shape[0] % (2 * heads):
                self._wrong_shape.append(
                    f"{source} {list(shape)} does not have 2 × {heads} equal parts of rows"
                )
                return None
            self._plan.heads[source] = heads
        if (added := self._subtract.find(name)) is not None:
            self._plan.added[source] = added[0]
        if self._negated_exp.find(name) is not None:
            self._plan.negated_exp.add(source)
        if shape and self._squeezed.find(name) is not None:
            self._plan.squeezed.add(source)
            return (shape[0], 1, *shape[1:])
        if self._transposed.find(name) is not None:
            if len(shape) != 3:
                self._wrong_shape.append(f"{source} {list(shape)} is not a stack of matrices")
                return None
            self._plan.transposed.add(source)
            return (shape[0], shape[2], shape[1])
        return shape

    def _split_up(self, source: str, entry: int | None, name: str, shape: Shape) -> None:
        split = self._split.find(name)
        if split is None:
            self._place(source, entry, name, None, shape)
            return
        parts, numbers = split
        if not shape or shape[0] % len(parts):
            self._wrong_shape.append(f"{source} {list(shape)} cannot be split into {len(parts)}")
            return
        rows = shape[0] // len(parts)
        for order, part in enumerate(parts):
            self._place(source, entry, fill_in(part, numbers), (order * rows, rows), (rows, *shape[1:]))

    def _common_name(self, source: str) -> str | None:
        """The name that safetensors checkpoints use; None where the tensor is dropped or unknown."""
        if self._gguf_rename is None:
            return source
        if self._gguf_drop.find(source) is not None:
            return None
        name = _mapped(self._gguf_rename, source)
        if name is None:
            self._unused.append(source)
        return name

    def _place(
        self, source: str, entry: int | None, name: str, rows: tuple[int, int] | None, shape: Shape
    ) -> None:
        target, order, width = name, 0, 1
        if (merged := self._merged_into.find(name)) is not None:
            (pattern, order), numbers = merged
            target, width = fill_in(pattern, numbers), len(self._merge[pattern])
        index, is_stacked = 0, False
        if (stacked := self._stacked_into.find(target)) is not None:
            pattern, numbers = stacked
            target, index, is_stacked = fill_in(pattern, numbers[:-1]), int(numbers[-1]), True
        if target not in self._parameters:
            self._unused.append(source)
            return
        if (index, order) in self._pieces[target]:
            self._unused.append(f"{source} (fills {name} a second time)")
            return
        cut = self._sharding.cut(name, shape)
        self._widths[target] = width
        if is_stacked:
            self._stacked.add(target)
        self._pieces[target][index, order] = Piece(
            source, entry, rows, cut, cut.shape(shape) if cut else shape, index, order, name
        )

    def _fill(self, name: str, shape: Shape) -> None:
        """Put the pieces of one parameter together, or note what is wrong with them."""
        pieces = self._pieces.get(name)
        if self._is_tied(name, shape) and not pieces:
            return
        if not pieces:
            self._missing.append(name)
            return
        stacked, width = name in self._stacked, self._widths[name]
        depth = shape[0] if stacked and shape else 1
        wanted = [(index, order) for index in range(depth) for order in range(width)]
        if lacking := [place for place in wanted if place not in pieces]:
            self._missing.append(f"{len(lacking)} of {len(wanted)} parts of {name}")
        if extra := [piece.source for place, piece in pieces.items() if place not in wanted]:
            self._unused.extend(extra)
        if lacking or extra:
            return
        ordered = tuple(pieces[place] for place in wanted)
        if all(
            _fits(ordered[first : first + width], shape[1:] if stacked else shape)
            for first in range(0, len(ordered), width)
        ):
            self._plan.targets[name] = Target(name, shape, stacked, ordered)
        else:
            found = " + ".join(f"{piece.label} {list(piece.shape)}" for piece in ordered[:width])
            self._wrong_shape.append(f"{name} {list(shape)} from {found}")

    def _is_tied(self, name: str, shape: Shape) -> bool:
        other = _mapped(self._tie, name)
        if other is None:
            return False
        if self._parameters.get(other) != shape or self._tie.find(other) is not None:
            raise PluginError(f"{name} cannot be tied to {other}: no untied parameter of that name and shape")
        self._plan.tied[name] = other
        return True


def _gguf_names(header: CheckpointHeader, weight_map: WeightMap) -> GGUFNames | None:
    if header.format != "gguf":
        return None
    if weight_map.gguf is None:
        raise ModelFileError(
            header.path,
            "this architecture cannot be loaded from GGUF files",
            hint="use its safetensors checkpoint",
        )
    return weight_map.gguf


def _mapped(table: PatternTable[str], name: str) -> str | None:
    found = table.find(name)
    return fill_in(*found) if found else None


def _inverse(merge: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, int]]:
    """Part -> the parameter it is merged into, and its place there."""
    inverse: dict[str, tuple[str, int]] = {}
    for whole, parts in merge.items():
        for order, part in enumerate(parts):
            if part in inverse:
                raise PluginError(f"the weight map merges {part} twice")
            inverse[part] = (whole, order)
    return inverse


def _checked_unstack(unstack: Mapping[str, str]) -> Mapping[str, str]:
    for whole, part in unstack.items():
        if stars(part) != stars(whole) + 1:
            raise PluginError(f"the weight map unstacks {whole} to {part}, which must have one * more")
    return unstack


def _stack_inverse(stack: Mapping[str, str]) -> dict[str, str]:
    """Name with one star more -> the parameter whose new dimension 0 that last star counts."""
    inverse: dict[str, str] = {}
    for whole, part in stack.items():
        if stars(part) != stars(whole) + 1:
            raise PluginError(f"the weight map stacks {part}, which must have one * more than {whole}")
        if part in inverse:
            raise PluginError(f"the weight map stacks {part} twice")
        inverse[part] = whole
    return inverse


def _fits(pieces: tuple[Piece, ...], shape: Shape) -> bool:
    """Whether pieces, one below the other, have exactly this shape."""
    if len(pieces) == 1:
        return pieces[0].shape == shape
    if not shape or any(not piece.shape or piece.shape[1:] != shape[1:] for piece in pieces):
        return False
    return sum(piece.shape[0] for piece in pieces) == shape[0]
