"""Sparse attention: queries read the blocks whose keys can fit them best (Tang et al. 2024, "Quest").

Of each block the cache keeps the largest and the smallest value of its keys, number by number; they bound what the
product with a query can be. An approximation: what is left out would have had some weight.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import nn

from inference_pio.optimizations.attention.selection import SINKS, WINDOW, report_of, select, standing_of
from inference_pio.optimizations.technique import Situation, Standing, Technique
from inference_pio.plugin.serving import serving_of


class Sparse(Technique):
    """What both phases have in common: blocks are chosen within a budget, in each layer for itself."""

    family = "sparse attention"
    category = "attention"
    exact = False
    flags = ("use_sparse_attention",)
    conflicts = ("sink_window",)
    by_layer = True
    phase: ClassVar[Literal["prefill", "decode"]]

    def standing(self, at: Situation) -> Standing:
        return standing_of(at, self.name)

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        budget = {self.phase: serving_of(model).attention_budget}
        select(model, self.name, "pages", sinks=SINKS, window=WINDOW, **budget)
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), **report_of(model, self.phase)}


class SparseDecode(Sparse):
    """Each decoding query chooses for itself, in each layer and for each key/value head."""

    name = "sparse_decode"
    title = "sparse attention in decoding"
    needs = ("paged_attention",)
    shows_on = "long"
    phase = "decode"


class SparsePrefill(Sparse):
    """Of a prompt, up to 192 rows of neighbouring queries choose together, for each key/value head."""

    name = "sparse_prefill"
    title = "sparse attention in prefill"
    needs = ("flash_attention",)
    shows_on = "long"
    phase = "prefill"
