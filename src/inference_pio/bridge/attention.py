"""Our attention under Transformers' modules: registered under one name with its attention and mask interfaces.

Modules call it with queries, keys and values of this step alone. Where those go is up to the seam that is in place
while the network runs (`seam`), one per thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from inference_pio.errors import PluginError

NAME = "inference_pio"
MaskFunction = Callable[[Any, Any, Tensor, Tensor], Tensor]


class AttentionCall(NamedTuple):
    """What an attention module gives: q [1, N, T, H], k [1, M, T, H], v [1, M, T, V], its mask, the rest by name."""

    module: nn.Module
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    options: Mapping[str, Any]


class Seam(Protocol):
    """What a network's attention modules talk to."""

    def attend(self, call: AttentionCall) -> Tensor:
        """[1, T, N, V]"""

    def mask(self, allowed: MaskFunction, options: Mapping[str, Any]) -> Tensor:
        """What modules are to pass on as their mask; allowed(batch, head, query, key) says what may be seen."""


_IN_PLACE: ContextVar[Seam | None] = ContextVar("seam", default=None)


@contextmanager
def seam(where: Seam) -> Iterator[None]:
    """Attention goes to `where` while the block runs, in this thread."""
    token = _IN_PLACE.set(where)
    try:
        yield
    finally:
        _IN_PLACE.reset(token)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    return _current().attend(AttentionCall(module, query, key, value, attention_mask, options)), None


def _mask(mask_function: MaskFunction, **options: Any) -> Tensor:
    return _current().mask(mask_function, options)


def _experts_on_meta(_module: nn.Module, hidden_states: Tensor, *_chosen: Any, **_options: Any) -> Tensor:
    """Shapes alone: which experts are used depends on values, and on torch's meta device there are none."""
    return hidden_states.new_empty(hidden_states.shape)


def _current() -> Seam:
    where = _IN_PLACE.get()
    if where is None:
        raise PluginError("a network of the bridge runs outside of it")
    return where


ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _mask)
ALL_EXPERTS_FUNCTIONS.register(NAME, _experts_on_meta)
