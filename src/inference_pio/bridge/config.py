"""What the bridge knows of a model: what Transformers' modules showed when they were tried without memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inference_pio.config import BaseModelConfig
from inference_pio.plugin.facts import WeightMap


@dataclass(frozen=True)
class AttentionLayer:
    """One call of attention in a forward pass, in the order of the calls.

    name       of the module that attends
    head_dim   of queries and keys; even
    value_dim  of values, at most head_dim
    scale      of the scores
    window     positions that a token sees, its own included; None: all before it
    """

    name: str
    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    scale: float
    window: int | None


@dataclass
class BridgeConfig(BaseModelConfig):
    """architecture  the class in Transformers
    raw           config.json, without what chooses implementations
    path          named in errors
    layers        attention, layer by layer
    keeps_rows    whether logits of some rows alone can be asked for
    weights       names of the checkpoint to parameters
    """

    torch_dtype: Any = "auto"
    architecture: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    layers: tuple[AttentionLayer, ...] = ()
    keeps_rows: bool = True
    weights: WeightMap = field(default_factory=WeightMap)
