"""From a model to its ranks, where its weights are to be divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from inference_pio.cache.ranked import RankedSpec
from inference_pio.optimizations.choice import Chosen, apply_all
from inference_pio.optimizations.technique import Situation
from inference_pio.parallel import RankedModel, Shard, SimulatedGroup
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.serving import give_serving, serving_of


def divided(
    at: Situation, plugin: ModelPlugin, kv_dtype: torch.dtype, techniques: Sequence[Chosen]
) -> nn.Module:
    """The model of `at`, or as many models of ranks in one as its `Serving` says, under the same techniques."""
    serving = serving_of(at.model)
    if serving.ranks == 1:
        return at.model
    group = SimulatedGroup(serving.ranks)
    ranks = []
    for number in range(serving.ranks):
        shard = Shard(number, serving.ranks, group)
        with torch.device("meta"):
            rank = plugin.build_model(at.config, shard)
        specs = plugin.cache_specs(at.config, kv_dtype, shard)
        give_serving(rank, replace(serving, cache_specs=specs, exempt={}))
        ranks.append(apply_all(techniques, rank, at.config, "plan"))
    each_layers = zip(*(serving_of(rank).cache_specs for rank in ranks), strict=True)
    model = RankedModel(ranks, group)
    give_serving(model, replace(serving, cache_specs=tuple(RankedSpec(specs) for specs in each_layers)))
    return model
