"""A step of native operations, recorded once and replayed as one call (csrc/record.cpp)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from inference_pio.ops import dispatch, native

# What only looks at a tensor in another way, where its result lies in the tensor that it was given.
_VIEWS = {
    *(
        "view",
        "flatten",
        "reshape",
        "unflatten",
        "detach",
        "unsqueeze",
        "squeeze",
        "select",
        "narrow",
        "split",
    ),
    *("chunk", "unbind", "alias", "float", "to", "contiguous", "__getitem__", "__get__"),
}
# What asks a tensor for its shape and the like, and not for its values.
_QUESTIONS = {
    *("__get__", "__len__", "size", "dim", "numel", "stride", "is_contiguous", "element_size", "data_ptr"),
    "untyped_storage",
}


class CannotRecord(Exception):
    """The step does something that is no native operation; the message names it.

    result  what the step gave, where it has run: what it wrote into caches is written, so it must not run again
    """

    def __init__(self, message: str, result: Tensor | None = None) -> None:
        super().__init__(message)
        self.result = result


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
            raise CannotRecord("the step gives back what no native operation made", self.result)
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
        raise CannotRecord(f"the step calls {foreign.found}", result)
    return result


class _Foreign(TorchFunctionMode):
    """Notes the first operation that a recording would miss.

    It watches torch's functions and methods, not the dispatcher: a mode of the dispatcher would make torch import a
    second's worth of modules in front of the second token.
    """

    found: str | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is None and not _is_known(func, args, result):
            self.found = str(getattr(func, "__name__", func))
        return result


def _is_known(func: Any, args: Any, result: Any) -> bool:
    if str(func).startswith("inference_pio."):
        return True
    tensors = [
        one for one in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(one, Tensor)
    ]
    if not tensors:
        return func.__name__ in _QUESTIONS
    return func.__name__ in _VIEWS and all(_lies_in(one, args[0]) for one in tensors)


def _lies_in(view: Tensor, whole: Tensor) -> bool:
    return view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
