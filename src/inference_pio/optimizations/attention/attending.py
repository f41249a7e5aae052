"""The attention of a model's layers, as techniques find it."""

from __future__ import annotations

from typing import cast

from torch import nn

from inference_pio.plugin.paged import PagedAttention, attending

__all__ = ["attending", "set_attention"]


def set_attention(module: nn.Module, how: PagedAttention) -> None:
    """Let a module attend in another way."""
    cast("_Attends", module).attend = how


class _Attends(nn.Module):
    attend: PagedAttention
