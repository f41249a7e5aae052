"""A loaded model without one of its savings: logits of every token, as if all of them were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from inference_pio.plugin.causal_lm import HeadedModel


@contextmanager
def every_row(model: nn.Module) -> Iterator[None]:
    """Compute the last block, the final norm and the head for every token, and pick the rows asked for at the end.

    It takes back what a model saves that drops, behind its last attention, the rows nobody reads.
    """
    wanted: list[Tensor] = []

    def ask_for_all(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001
        batch, caches = args
        wanted.append(batch.last_token)
        rows = torch.arange(batch.token_ids.shape[0], device=batch.token_ids.device)
        return replace(batch, last_token=rows), caches

    def pick(module: nn.Module, args: tuple[Any, ...], rows: Tensor) -> Tensor:
        batch = args[0]
        if batch.hidden_only:
            # The engine runs the head on the rows that it wants; here it runs on all of them.
            cast("HeadedModel", module).logits(rows)
        return rows.index_select(0, wanted.pop())

    hooks = (model.register_forward_pre_hook(ask_for_all), model.register_forward_hook(pick))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
