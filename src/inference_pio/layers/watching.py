"""What each linear map of a model is given, while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from inference_pio.layers.linear import Linear

See = Callable[[str, Linear, Tensor], None]
"""Called with the module's name, the module and its input [T, in_features], before the module computes."""


@contextmanager
def watched_linears(model: nn.Module, see: See) -> Iterator[None]:
    """While the block runs, every `Linear` that the model calls tells `see` first; what that does to the module's
    weight, the call itself meets already.
    """
    handles = [
        module.register_forward_pre_hook(_hook(name, see))
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, see: See) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Linear)
        see(name, module, inputs[0].flatten(0, -2))

    return hook
