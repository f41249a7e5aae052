"""Whether a model is prepared with its checkpoint's own layer for drafts."""

from __future__ import annotations

from typing import Any

import torch

from inference_pio.loader.tensor_info import CheckpointHeader
from inference_pio.parallel import Shard
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.runtime import RuntimeOptions


def with_drafting(plugin: ModelPlugin, stated: Any, options: RuntimeOptions, header: CheckpointHeader) -> Any:
    """The configuration that a checkpoint states, changed so that its layer for drafts is loaded, if it has one and
    its drafts can be used: speculation is on, and no layer keeps state, which a wrong draft would spoil.
    """
    if not (options.mtp and options.speculation):
        return stated
    drafting = plugin.with_drafting(stated, header.tensors.keys())
    if drafting is None or any(
        spec.bytes_per_sequence() for spec in plugin.cache_specs(stated, torch.float32, Shard())
    ):
        return stated
    return drafting
