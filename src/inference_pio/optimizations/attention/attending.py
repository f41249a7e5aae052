"""The attention of a model's layers, as techniques find it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import nn

from inference_pio.plugin.paged import PagedAttention


def attending(model: nn.Module) -> Iterator[tuple[nn.Module, PagedAttention]]:
    """Each module that attends over a paged cache, in the order of the layers, and how (its attribute `attend`)."""
    for module in model.modules():
        how = getattr(module, "attend", None)
        if isinstance(how, PagedAttention):
            yield module, how


def set_attention(module: nn.Module, how: PagedAttention) -> None:
    """Let a module attend in another way."""
    cast("_Attends", module).attend = how


class _Attends(nn.Module):
    attend: PagedAttention
