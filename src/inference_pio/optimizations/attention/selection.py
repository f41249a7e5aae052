"""Layers that read some of their cache: what sparse attention and windows with sinks set up alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from inference_pio import ops
from inference_pio.cache.specs import PagedKV
from inference_pio.errors import PluginError
from inference_pio.optimizations.attention.attending import attending, set_attention
from inference_pio.optimizations.technique import Situation, Standing, active, dormant, not_applicable
from inference_pio.plugin.paged import PagedAttention
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import serving_of

USUAL_BUDGET = RuntimeOptions().attention_budget
SINKS, WINDOW = 32, 64  # tokens of the beginning and of the end that pages are chosen between


def layers_of(model: nn.Module) -> list[tuple[int, nn.Module, PagedAttention]]:
    """Layers that attend to all that is before them over keys and values in blocks, by their numbers.

    Raises:
        PluginError: the model does not attend as many times as it keeps keys and values.
    """
    layers, modules = _kept(model), list(attending(model))
    if len(modules) != len(layers):
        raise PluginError(
            f"{len(layers)} layers keep keys and values and {len(modules)} modules have a PagedAttention in `attend`: "
            f"what a model reads is selected where both are the same"
        )
    return [
        (layer, module, how)
        for layer, (module, how) in zip(layers, modules, strict=True)
        if how.window is None
    ]


def _kept(model: nn.Module) -> list[int]:
    specs = serving_of(model).cache_specs
    return [layer for layer, spec in enumerate(specs) if isinstance(spec, PagedKV)]


def standing_of(at: Situation, technique: str) -> Standing:
    """Of a technique that lets layers read up to `attention_budget` keys.

    Receipts are made with the usual budget, and say nothing of a smaller one: that has to be asked for by name.
    """
    budget, longest = at.options.attention_budget, longest_of(at)
    if at.device.type != "cpu":
        return not_applicable(f"blocks are chosen on a CPU, and the model lies on {at.device}")
    modules = list(attending(at.model))
    if not modules or len(modules) != len(_kept(at.model)):
        return not_applicable(
            "not each layer attends over keys and values in blocks by the engine's own operation"
        )
    if not layers_of(at.model):
        return not_applicable("every layer has a window already")
    if longest <= budget:
        return dormant(f"contexts of up to {longest:,} tokens are within attention_budget {budget:,}")
    if budget < USUAL_BUDGET and technique not in at.options.enable:
        return dormant(
            f"attention_budget {budget} is below the {USUAL_BUDGET:,} of receipts: enable it by name"
        )
    return active(f"of more than {budget:,} keys a query reads {budget:,}")


def longest_of(at: Situation) -> int:
    """Tokens of the longest sequence that the engine may run."""
    return at.options.max_model_len or at.config.max_position_embeddings


def select(model: nn.Module, technique: str, kind: Any, **numbers: int) -> None:
    """Give each layer in which `technique` may act a selection of that kind, beside what its selection says already."""
    serving = serving_of(model)
    allowed, specs = set(serving.layers_for(technique)), list(serving.cache_specs)
    for layer, module, how in layers_of(model):
        if layer not in allowed:
            continue
        before = {} if how.selection is None else vars(how.selection)
        selection = ops.Selection(**{**before, "kind": kind, **numbers})
        set_attention(module, replace(how, selection=selection))
        spec = specs[layer]
        if kind == "pages" and isinstance(spec, PagedKV):
            specs[layer] = replace(spec, bounded_block=serving.block_size)
    serving.cache_specs = tuple(specs)


def report_of(model: nn.Module, field: str | None) -> dict[str, Any]:
    """In how many layers something is selected (`field`: a budget that is set), what is read, and what it costs."""
    serving = serving_of(model)
    chosen = [
        (layer, how.selection)
        for layer, _, how in layers_of(model)
        if how.selection is not None and (field is None or getattr(how.selection, field) is not None)
    ]
    bounds = [
        spec.bytes_per_token() - replace(spec, bounded_block=None).bytes_per_token()
        for spec in serving.cache_specs
        if isinstance(spec, PagedKV)
    ]
    return {
        "layers": len(chosen),
        "keys_read_of_8192": chosen[0][1].keys_read(8191, serving.block_size, decodes=field != "prefill")
        if chosen
        else 8192,
        "bounds_bytes_per_token": sum(bounds),
    }
