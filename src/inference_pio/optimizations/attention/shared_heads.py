"""Queries that share a key/value head go through its keys and values together (Shazeer 2019; Ainslie et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from inference_pio.cache.specs import PagedKV
from inference_pio.optimizations.attention.attending import attending, set_attention
from inference_pio.optimizations.technique import Situation, Standing, Technique, active, not_applicable
from inference_pio.plugin.serving import serving_of

_FAMILY = "multi-query / grouped-query attention"


class _SharedHeads(Technique):
    """Keys and values are read once per group of queries in place of once per query."""

    family = _FAMILY
    category = "attention"
    exact = True
    shows_on = "long"
    one_head: ClassVar[bool]

    def standing(self, at: Situation) -> Standing:
        if not any(True for _ in attending(at.model)):
            return not_applicable("its layers do not attend over keys and values of their own")
        heads, kept = at.config.num_attention_heads, _kv_heads(at.model)
        if kept == heads:
            return not_applicable("every head has keys and values of its own")
        if (kept == 1) is not self.one_head:
            return not_applicable(f"{heads} heads share {kept} key/value head{'' if kept == 1 else 's'}")
        return active(f"{heads} heads share {kept}, read once per group")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        for module, how in attending(model):
            set_attention(module, replace(how, grouped=True))
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "layers": sum(how.grouped for _, how in attending(model))}


class MultiQueryAttention(_SharedHeads):
    """Where all queries share one key/value head, its keys and values are read once, not once for each query."""

    name = "multi_query_attention"
    title = "multi-query attention"
    flags = ("use_multi_query_attention",)
    one_head = True


class GroupedQueryAttention(_SharedHeads):
    """Where a few queries share each key/value head, its keys and values are read once for all of them."""

    name = "grouped_query_attention"
    title = "grouped-query attention"
    flags = ("use_grouped_query_attention",)
    one_head = False


def _kv_heads(model: nn.Module) -> int:
    """Of the first layer that keeps keys and values."""
    return next(spec.num_kv_heads for spec in serving_of(model).cache_specs if isinstance(spec, PagedKV))
