"""Sliding windows: exact where a model was trained with them, elsewhere an approximation that keeps the beginning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from inference_pio.optimizations.attention.attending import attending, set_attention
from inference_pio.optimizations.attention.selection import SINKS, report_of, select, standing_of
from inference_pio.optimizations.technique import Situation, Standing, Technique, active, not_applicable
from inference_pio.plugin.serving import serving_of


class Window(Technique):
    """Keys before a layer's window (Beltagy et al. 2020) are not read, where else they are and count for nothing."""

    name = "window"
    title = "sliding windows that the model has"
    family = "sliding-window attention"
    category = "attention"
    exact = True
    flags = ("use_sliding_window_attention",)
    shows_on = "long"

    def standing(self, at: Situation) -> Standing:
        windows = [how.window for _, how in attending(at.model) if how.window is not None]
        if not windows:
            return not_applicable("no layer of this model has a window")
        return active(f"{len(windows)} layers read no further back than {max(windows):,} positions")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        for module, how in attending(model):
            if how.window is not None:
                set_attention(module, replace(how, reads_all=False))
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        read = [how for _, how in attending(model) if how.window is not None and not how.reads_all]
        return {**self.facts(), "layers": len(read)}


class SinkWindow(Technique):
    """The first tokens and the last ones (Xiao et al. 2023, "StreamingLLM"), at the positions that they have."""

    name = "sink_window"
    title = "windows with sink tokens"
    family = "sliding-window attention"
    category = "attention"
    exact = False
    flags = ("use_sliding_window_attention",)
    needs = ("flash_attention", "paged_attention")
    conflicts = ("sparse_decode", "sparse_prefill")
    shows_on = "long"
    by_layer = True

    def standing(self, at: Situation) -> Standing:
        return standing_of(at, self.name)

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        budget = serving_of(model).attention_budget
        select(model, self.name, "sinks", sinks=SINKS, window=budget - SINKS)
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), **report_of(model, None)}
