"""A step of native operations, recorded once and replayed as one call (csrc/record.cpp)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from inference_pio.ops import dispatch, native

# What only looks at a tensor in another way, where its result lies in the tensor that it was given.
_VIEWS = tuple(
    f"aten.{name}."
    for name in ("view", "_unsafe_view", "alias", "detach", "slice", "unsqueeze", "select", "flatten", "reshape",
                 "to", "contiguous", "lift_fresh")
)  # fmt: skip


class CannotRecord(Exception):
    """The step does something that is no native operation; the message names it."""


class RecordedStep:
    """`result` holds what the step computed last; `replay` computes it again from what the inputs hold now.

    The inputs are the tensors that `step` read while it was recorded: they, the weights and the caches must stay where
    they are. Memory between operations is the recording's own.
    """

    def __init__(self, step: Callable[[], Tensor]) -> None:
        """Run `step` once and keep its operations.

        Raises:
            CannotRecord: `step` computed something with another operation than those of `inference_pio.ops`.
        """
        if not dispatch.is_native():
            raise CannotRecord("operations run in torch")
        native.call("begin_recording")
        try:
            self.result = _native_alone(step)
            number = native.call("end_recording", self.result)
        except BaseException:
            native.call("abandon_recording")
            raise
        if number == 0:
            raise CannotRecord("the step gives back what no native operation made")
        self._number = number
        weakref.finalize(self, native.call, "forget_step", number).atexit = False

    def replay(self) -> Tensor:
        native.call("replay", self._number)
        return self.result

    def timed_replay(self) -> list[tuple[str, float]]:
        """Replay it; each operation's name and its seconds, in order."""
        lines = str(native.call("timed_replay", self._number)).splitlines()
        return [
            (name, float(microseconds) / 1e6)
            for name, _, microseconds in (line.partition("\t") for line in lines)
        ]


def _native_alone(step: Callable[[], Tensor]) -> Tensor:
    foreign = _Foreign()
    with foreign:
        result = step()
    if foreign.found is not None:
        raise CannotRecord(f"the step calls {foreign.found}")
    return result


class _Foreign(TorchDispatchMode):
    """Notes the first operation that a recording would miss."""

    found: str | None = None

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        known = name.startswith("inference_pio.") or (name.startswith(_VIEWS) and _lies_in(result, args[0]))
        if self.found is None and not known:
            self.found = name
        return result


def _lies_in(view: Tensor, whole: Tensor) -> bool:
    return view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
