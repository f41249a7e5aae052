"""What a model asks of the engine that runs it: written by techniques, read by the runtime."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from inference_pio.cache.specs import CacheSpec
from inference_pio.errors import PluginError


@dataclass
class Serving:
    """Every model carries one from before its memory is planned.

    cache_specs         what each layer remembers, one spec per layer
    prefix_caching      blocks of equal beginnings are shared
    prefix_cache_bytes  what may be kept for later requests only
    block_size          tokens of one of the cache's blocks, and
    attention_budget    keys that a query reads where only some are read, as `RuntimeOptions` have them
    exempt              technique -> layers that it must leave as they are, where its receipt says so
    """

    cache_specs: tuple[CacheSpec, ...]
    prefix_caching: bool = False
    prefix_cache_bytes: int = 0
    block_size: int = 32
    attention_budget: int = 1024
    exempt: dict[str, frozenset[int]] = field(default_factory=dict)

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
