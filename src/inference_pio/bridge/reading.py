"""From config.json to what the runtime asks a plugin for. Imports Transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference_pio.bridge.config import BridgeConfig
from inference_pio.bridge.model import BridgedModel
from inference_pio.bridge.network import build, compute_buffers, rotary_kinds, stated
from inference_pio.bridge.probe import probe
from inference_pio.bridge.weights import weight_map


def read(raw: Mapping[str, Any], path: str) -> BridgeConfig:
    """Build the network without memory, try it, and note what it does."""
    network = build(raw, path)
    findings = probe(network, path)
    layers = findings.layers
    pad = network.config.pad_token_id
    return BridgeConfig(
        hidden_size=stated(network, "hidden_size", path),
        num_attention_heads=max(layer.num_heads for layer in layers),
        num_hidden_layers=len(layers),
        max_position_embeddings=_longest_text(network, path),
        intermediate_size=_widest(network, findings.vocab_size),
        vocab_size=findings.vocab_size,
        pad_token_id=pad if isinstance(pad, int) and pad >= 0 else None,
        architecture=type(network).__name__,
        raw=dict(raw),
        path=path,
        layers=layers,
        keeps_rows=findings.keeps_rows,
        weights=weight_map(network, [layer.name for layer in layers], path),
    )


def build_model(config: BridgeConfig) -> BridgedModel:
    """The network again, untouched by a step, with its buffers computed and its parameters still without memory."""
    network = build(config.raw, config.path)
    compute_buffers(network, config.path)
    return BridgedModel(network, config)


def _longest_text(network: Any, path: str) -> int:
    """Positions the model was made for; where frequencies change beyond a length (longrope), that length.

    Transformers turns all positions of a sequence by other frequencies once it is longer, those in its cache not.
    """
    longest = stated(network, "max_position_embeddings", path)
    if "longrope" not in rotary_kinds(network):
        return longest
    rope = network.config.rope_parameters
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    limits = [
        part["original_max_position_embeddings"] for part in parts if part.get("rope_type") == "longrope"
    ]
    return min(longest, *map(int, limits))


def _widest(network: Any, vocab_size: int) -> int:
    """The largest side of a matrix inside the layers: what activations are planned by."""
    sides = [
        side
        for _, parameter in network.named_parameters()
        if parameter.ndim >= 2 and vocab_size not in parameter.shape
        for side in parameter.shape[-2:]
    ]
    return max(sides, default=1)
