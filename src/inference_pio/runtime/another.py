"""Another engine on a model that is loaded already: other options, caches of its own, the same weights."""

from __future__ import annotations

from torch import nn

from inference_pio.engine.core import EngineCore
from inference_pio.errors import ResourceError
from inference_pio.metrics.memory import available_bytes
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.loading import engine_config
from inference_pio.runtime.opened import model_store
from inference_pio.runtime.prepared import Prepared, prepare_model
from inference_pio.runtime.receipts import receipt_grants


def planned_with(ready: Prepared, options: RuntimeOptions) -> Prepared:
    """The plan of a loaded model with other options; its `model` is shapes alone.

    Raises:
        ResourceError: caches and activations do not fit into the memory that is free now.
        ConfigError: the options cannot be had with this model.
    """
    grants = receipt_grants(model_store(None), ready.files.checkpoint, ready.config, options)
    planned = prepare_model(ready.plugin, ready.config, options, None, None, ready.opened, grants)
    plan, free = planned.plan, available_bytes()
    needed = plan.kv_cache + plan.activations + plan.logits
    if needed > free:
        raise ResourceError(
            f"another engine for {ready.config.model_name} does not fit: {needed / 1e9:.2f} GB of caches, activations "
            f"and logits > {free / 1e9:.2f} GB of free memory"
        )
    return planned


def another_core(ready: Prepared, model: nn.Module, options: RuntimeOptions) -> EngineCore:
    """An engine for whoever steps it; requests end by length alone.

    Options that decide how weights are loaded (`quantize`, `experts`, `mtp`) are to be those of `ready`.
    """
    planned = planned_with(ready, options)
    return EngineCore(
        model,
        planned.serving.cache_specs,
        engine_config(planned),
        vocab_size=ready.config.vocab_size,
        eos_token_ids=(),
        prefix_policy=ready.plugin.prefix_policy(ready.config),
        device=ready.device,
    )
