"""Projections of one input are one product: queries, keys and values; gate and up."""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.layers import Linear
from inference_pio.optimizations.technique import Situation, Standing, Technique, active, not_applicable
from inference_pio.plugin.serving import serving_of


class MergedProjections(Technique):
    """The input is read, and in blocks rounded to 8 bits, once in place of twice or three times.

    Loading puts them together (the plugins' weight maps); without this technique they are taken apart again, into
    products of their own (`Linear.separate`), where they lie in blocks.
    """

    name = "merged_projections"
    title = "merged projections"
    family = "model surgery"
    category = "hardware"
    exact = True
    shows_on = "decode"

    def standing(self, at: Situation) -> Standing:
        if not at.packed:
            return not_applicable("dense projections are merged for good: no border between them is kept")
        return active("queries, keys and values, and gate and up, are one product each")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving_of(model).merged = True
        for linear in _linears(model):
            linear.merge()
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "merged": sum(linear.merges > 1 for linear in _linears(model))}


def separate_all(model: nn.Module) -> None:
    """Every merged projection in products of their own."""
    for linear in _linears(model):
        linear.separate()


def _linears(model: nn.Module) -> list[Linear]:
    return [module for module in model.modules() if isinstance(module, Linear)]
