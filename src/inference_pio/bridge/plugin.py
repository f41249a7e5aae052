"""The bridge as a plugin: its facts come from the network that Transformers builds for a config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inference_pio.bridge import MANIFEST
from inference_pio.bridge.config import BridgeConfig
from inference_pio.bridge.offer import INSTALL, installed
from inference_pio.errors import PluginError
from inference_pio.imports import import_object
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.facts import ChatFormat, PrefixPolicy, ShardPlan, TechniqueFact, WeightMap
from inference_pio.plugin.techniques import int8_cache, prefix_caching

if TYPE_CHECKING:
    import torch
    from torch import nn

    from inference_pio.cache.specs import PagedKV
    from inference_pio.config import BaseModelConfig
    from inference_pio.parallel import Shard
    from inference_pio.plugin.manifest import Manifest


class BridgePlugin(ModelPlugin):
    """Any causal language model of Transformers whose layers attend through its attention interface."""

    manifest: ClassVar[Manifest] = MANIFEST
    config_class: ClassVar[type[BaseModelConfig]] = BridgeConfig

    def read_config(self, raw: Mapping[str, Any], path: str) -> BridgeConfig:
        """Builds and tries the network without memory.

        Raises:
            UnsupportedArchitecture: it cannot be run right; the message names why.
            PluginError: Transformers is not installed, or is a release that lacks what the bridge uses of it.
        """
        if installed() is None:
            raise PluginError(f"the bridge needs Transformers, which is not installed: {INSTALL}")
        config: BridgeConfig = import_object("inference_pio.bridge.reading:read")(raw, path)
        return config

    def build_model(self, config: BridgeConfig, shard: Shard) -> nn.Module:  # noqa: ARG002
        model: nn.Module = import_object("inference_pio.bridge.reading:build_model")(config)
        return model

    def weight_map(self, config: BridgeConfig) -> WeightMap:
        return config.weights

    def cache_specs(self, config: BridgeConfig, dtype: torch.dtype, shard: Shard) -> tuple[PagedKV, ...]:  # noqa: ARG002
        from inference_pio.bridge.model import cache_spec

        return tuple(cache_spec(layer, dtype) for layer in config.layers)

    def shard_plan(self, config: BridgeConfig) -> ShardPlan:  # noqa: ARG002
        return ShardPlan({}, (1,))

    def prefix_policy(self, config: BridgeConfig) -> PrefixPolicy:
        raw = repr(sorted(config.raw.items()))
        return PrefixPolicy(seed=("transformers", config.architecture, raw, str(config.torch_dtype)))

    def chat_format(self, config: BridgeConfig) -> ChatFormat:  # noqa: ARG002
        return ChatFormat()

    def techniques(self, config: BridgeConfig) -> tuple[TechniqueFact, ...]:
        return (
            TechniqueFact(
                "paged attention", "attention", "active", exact=True, reason="in every layer, ours"
            ),
            int8_cache(),
            prefix_caching(config),
            *(
                TechniqueFact(name, "hardware", "not applicable", exact=exact, reason=reason)
                for name, exact, reason in _WITHOUT
            ),
        )


_WITHOUT = (
    ("weight quantisation", False, "the linear maps are Transformers', and dense"),
    ("fused layer norm", True, "the norms are Transformers'"),
    ("recorded decode steps", True, "a step calls torch's operations between ours"),
    ("tensor parallelism", True, "one rank holds the model"),
)
