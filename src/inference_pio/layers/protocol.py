"""What loading asks of a module, if the module has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from inference_pio import ops


@runtime_checkable
class FinishesLoading(Protocol):
    """A module that prepares itself once its parameters are there: packs a weight, computes a table."""

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:
        """Called exactly once, when all parameters of the module and of modules in it are filled.

        It may drop or replace parameters of its own. A module without parameters, and one that shares a parameter with
        another, is called after everything is filled.
        """


@runtime_checkable
class KeepsDtype(Protocol):
    """A module whose own parameters are loaded in `parameter_dtype`, whatever the rest of the model uses."""

    parameter_dtype: torch.dtype


@runtime_checkable
class NeedsScratch(Protocol):
    """A module that for a moment holds much more than its input and output: the memory plan asks how much."""

    def scratch_bytes(self, tokens: int, sequences: int, context: int, itemsize: int) -> int:
        """At most, in one call.

        Args:
            tokens: rows of the step.
            sequences: that they belong to at most.
            context: tokens of the longest sequence.
            itemsize: bytes of an activation.
        """


@runtime_checkable
class TakesQuantized(Protocol):
    """A module whose `weight` may stay in the blocks of the file."""

    packed: ops.PackedWeight | ops.QuantizedWeight | None

    def take_quantized(self, pieces: Sequence[ops.Blocks], memory: ops.Slab) -> None:
        """Instead of filling `weight`: its rows, piece by piece from the first one down, to be kept in `memory`."""


@runtime_checkable
class TakesStacks(Protocol):
    """A module whose stacked parameters may stay in the blocks of the file: all of them, or none.

    stacks  parameter of the module -> what it took
    """

    stacks: dict[str, ops.QuantizedStack]

    def take_stack(self, name: str, stack: ops.QuantizedStack) -> None:
        """Instead of filling parameter `name` of the module."""
