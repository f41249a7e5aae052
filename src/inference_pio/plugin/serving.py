"""What a model asks of the engine that runs it: written by techniques, read by the runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import CacheSpec
from inference_pio.errors import PluginError
from inference_pio.plugin.quantization import Quantization

LOGIT_BYTES = 12
"""Of one logit of a step at most: float32, and two more of what a head rounds and a sampler makes of it."""


@dataclass
class Serving:
    """Every model carries one from before its memory is planned.

    cache_specs         what each layer remembers, one spec per layer
    prefix_caching      blocks of equal beginnings are shared
    prefix_cache_bytes  what may be kept for later requests only
    pages_layers        layers may be read when they are used, within a budget of memory that the caller sets
    offloads            experts and layers may lie on the disk where memory is too small for them
    disk_bytes          of weights that do lie there by the memory plan
    evicts              tokens of a sequence over its budget are given up (`RuntimeOptions.kv_cache_budget`)
    native_groups       groups of operations (`ops.GROUPS`) that run in kernels of the device; the others run in torch
    recompute           nothing is kept from step to step: each token computes all before it again
    asked_ranks, ranks  over how many ranks its weights were asked to be divided, and are
    asked_vocabulary    how many of the first tokens are to have logits; vocabulary: (end of the first run, start of the
                        last one) of tokens that have, None: all
    asked_quantization  how weights with more bits were asked to be rounded as they are read, and
    quantization        how they are; None: not
    most_logit_rows     rows of one step that need logits at most: one per sequence, and drafts
    logit_rows          of how many of them logits are in memory at once; None: of all
    merged              projections of one input are one product
    prefix_disk         blocks that memory has no room for go to the disk, as much as the caller allows
    block_size          tokens of one of the cache's blocks, and
    attention_budget    keys that a query reads where only some are read, as `RuntimeOptions` have them
    exempt              technique -> layers that it must leave as they are, where its receipt says so
    calibration         gives a calibration text as token ids [windows, tokens], while weights are loaded
    """

    cache_specs: tuple[CacheSpec, ...]
    prefix_caching: bool = False
    prefix_cache_bytes: int = 0
    pages_layers: bool = False
    offloads: bool = False
    disk_bytes: int = 0
    evicts: bool = False
    native_groups: frozenset[ops.Group] = frozenset()
    recompute: bool = False
    asked_ranks: int = 1
    ranks: int = 1
    asked_vocabulary: int = 0
    vocabulary: tuple[int, int] | None = None
    asked_quantization: Quantization | None = None
    quantization: Quantization | None = None
    most_logit_rows: int = 1
    logit_rows: int | None = None
    merged: bool = False
    prefix_disk: bool = False
    block_size: int = 32
    attention_budget: int = 1024
    exempt: dict[str, frozenset[int]] = field(default_factory=dict)
    calibration: Callable[[], Tensor] | None = None

    def layers_for(self, technique: str) -> list[int]:
        """The layers, by number, in which a technique may act."""
        kept = self.exempt.get(technique, frozenset())
        return [layer for layer in range(len(self.cache_specs)) if layer not in kept]


_ATTRIBUTE = "_serving"


def give_serving(model: nn.Module, serving: Serving) -> Serving:
    """Let `model` carry that record from now on."""
    object.__setattr__(model, _ATTRIBUTE, serving)
    return serving


def serving_of(model: nn.Module) -> Serving:
    """The record that a model carries.

    Raises:
        PluginError: nobody gave it one: it was not prepared by a runtime.
    """
    found = vars(model).get(_ATTRIBUTE)
    if not isinstance(found, Serving):
        raise PluginError(f"{type(model).__name__} carries no Serving: give it one (plugin/serving.py)")
    return found
