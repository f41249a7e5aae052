"""What a model does while it answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor, nn

from inference_pio.models.llama.plugin import LlamaPlugin
from inference_pio.ops import dispatch, reference
from inference_pio.optimizations.attention.attending import attending, set_attention


@contextmanager
def counted_attention(model: nn.Module) -> Iterator[list[int]]:
    """How often the first layer's attention is called."""
    module, how = next(attending(model))
    count = [0]

    def counting(attend: Any) -> Any:
        def counted(*args: Any) -> Tensor:
            count[0] += 1
            result: Tensor = attend(*args)
            return result

        return counted

    set_attention(module, replace(how, prefill=counting(how.prefill), decode=counting(how.decode)))
    yield count
    set_attention(module, how)


@contextmanager
def seen_implementations() -> Iterator[set[str]]:
    """Which implementations of attention were picked."""
    seen: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        for name, table in (("native", dispatch._native), ("reference", dispatch._reference)):

            def noting(*args: Any, _name: str = name, _op: Any = table["rms_norm"]) -> Tensor:
                seen.add(_name)
                result: Tensor = _op(*args)
                return result

            patch.setitem(table, "rms_norm", noting)
        yield seen


@contextmanager
def score_rows() -> Iterator[list[int]]:
    """How many queries' scores the reference materialised at once."""
    rows: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        causal = reference._causal

        def noting(q_QNH: Tensor, *args: Any) -> Tensor:
            rows.append(len(q_QNH))
            return causal(q_QNH, *args)

        patch.setattr(reference, "_causal", noting)
        yield rows


@contextmanager
def computed_rows(plugin: LlamaPlugin) -> Iterator[list[int]]:
    """Tokens of each step."""
    rows: list[int] = []
    hook = plugin.load_model().register_forward_pre_hook(
        lambda _module, args: rows.append(len(args[0].token_ids))
    )
    yield rows
    hook.remove()
