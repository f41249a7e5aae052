"""How a network attends, found out by running it without memory: shapes, scales, windows, masks.

The facts come from what its modules do, not from what keys of a configuration are believed to mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inference_pio.bridge.attention import AttentionCall, MaskFunction, seam
from inference_pio.bridge.config import AttentionLayer
from inference_pio.bridge.foreign import refuse, transformers_at_work
from inference_pio.bridge.network import stated

_TOKENS = 5
_LONGEST = 2**20
# What modules pass on that means nothing to attention over a cache: rows are told apart by the step itself.
_HARMLESS = frozenset(
    {"dropout", "position_ids", "use_cache", "output_attentions", "output_router_logits", "logits_to_keep"}
)
_KNOWN = frozenset({"scaling", "sliding_window"})
_MEANING = {
    "softcap": "scores with a soft cap (attn_logit_softcapping)",
    "s_aux": "attention with sinks",
    "sinks": "attention with sinks",
    "indices": "attention to chosen tokens (an indexer)",
    "block_indices": "attention to chosen blocks",
    "position_bias": "attention with a position bias",
}


@dataclass(frozen=True)
class Findings:
    """layers      in the order in which they attend
    vocab_size  columns of the logits
    keeps_rows  logits of some rows alone can be asked for
    """

    layers: tuple[AttentionLayer, ...]
    vocab_size: int
    keeps_rows: bool


def probe(network: Any, path: str) -> Findings:
    """Run one step of a network that lies on torch's meta device.

    Raises:
        UnsupportedArchitecture: it does something else than causal attention through Transformers' interface, once per
            layer, with or without a window; the message names what.
    """
    seen = _Probe(network, path)
    ids = torch.zeros(1, _TOKENS, dtype=torch.int64, device="meta")
    with (
        transformers_at_work(path, "a step without memory"),
        torch.device("meta"),
        torch.no_grad(),
        seam(seen),
    ):
        logits = network(
            input_ids=ids,
            position_ids=ids.clone(),
            attention_mask=torch.ones_like(ids),
            use_cache=False,
            logits_to_keep=ids[0, :1],
        ).logits
    count = stated(network, "num_hidden_layers", path)
    if len(seen.layers) != count:
        raise refuse(
            path,
            f"{len(seen.layers)} of its {count} layers attend through Transformers' attention interface; the others "
            f"keep state, or attend in a way of their own",
        )
    longest = stated(network, "max_position_embeddings", path)
    for function, layer in seen.masks:
        _check_mask(function, layer, longest, path)
    return Findings(tuple(seen.layers.values()), int(logits.shape[-1]), keeps_rows=logits.shape[1] == 1)


class _Probe:
    """A seam that takes notes."""

    def __init__(self, network: nn.Module, path: str) -> None:
        self._path = path
        self._names = {module: name for name, module in network.named_modules()}
        self.layers: dict[nn.Module, AttentionLayer] = {}
        self.masks: dict[tuple[MaskFunction, AttentionLayer], None] = {}
        self._given: list[tuple[Tensor, MaskFunction]] = []

    def mask(self, allowed: MaskFunction, options: Mapping[str, Any]) -> Tensor:
        if options.get("use_vmap"):
            raise refuse(self._path, "it adds a mask of its own to the causal one")
        given = torch.zeros(1, 1, 1, 1, device="meta")
        self._given.append((given, allowed))
        return given

    def attend(self, call: AttentionCall) -> Tensor:
        q, k, v, module = call.q, call.k, call.v, call.module
        layer = self._layer(self._names[module], q, k, v, call.options)
        if module in self.layers:
            raise refuse(self._path, f"{type(module).__name__} attends more than once in a layer")
        functions = [allowed for given, allowed in self._given if given is call.mask]
        if not functions:
            raise refuse(self._path, f"{type(module).__name__} makes its mask in a way of its own")
        self.layers[module] = layer
        self.masks[functions[0], layer] = None
        return q.new_empty(1, q.shape[2], q.shape[1], v.shape[3])

    def _layer(
        self, name: str, q: Tensor, k: Tensor, v: Tensor, options: Mapping[str, Any]
    ) -> AttentionLayer:
        for option, value in options.items():
            harmless = option in _HARMLESS or (option == "is_causal" and value is True)
            if value is not None and option not in _KNOWN and not harmless:
                raise refuse(self._path, _MEANING.get(option, f"attention with {option}"))
        _, num_heads, tokens, head_dim = q.shape
        num_kv_heads, value_dim = k.shape[1], v.shape[3]
        shapes = (tuple(q.shape), tuple(k.shape), tuple(v.shape))
        kv_shapes = ((1, num_kv_heads, tokens, head_dim), (1, num_kv_heads, tokens, value_dim))
        if tokens != _TOKENS or shapes[1:] != kv_shapes or num_heads % num_kv_heads:
            raise refuse(self._path, f"queries, keys and values of shapes {', '.join(map(str, shapes))}")
        if head_dim % 2 or value_dim > head_dim:
            raise refuse(self._path, f"heads of {head_dim} with values of {value_dim}")
        scale = options.get("scaling")
        scale = head_dim**-0.5 if scale is None else scale
        if not isinstance(scale, (int, float)) or scale <= 0:
            raise refuse(self._path, f"scores times {scale!r}")
        window = options.get("sliding_window")
        return AttentionLayer(name, num_heads, num_kv_heads, head_dim, value_dim, float(scale), window)


def _check_mask(allowed: MaskFunction, layer: AttentionLayer, longest: int, path: str) -> None:
    """The mask that Transformers would make shows what attention with `layer.window` shows, up to the longest text."""
    length = min(longest, _LONGEST)
    window = length if layer.window is None else layer.window
    near = {0, 1, length // 2, length - 2, length - 1, window - 1, window, window + 1}
    with torch.device("cpu"), transformers_at_work(path, "making a mask"):
        key = torch.arange(length)[None, :]
        query = torch.tensor(sorted(at for at in near if 0 <= at < length))[:, None]
        zero = torch.zeros((), dtype=torch.int64)
        made = allowed(zero, zero, query, key).expand(query.shape[0], length)
        right = torch.equal(made, (key <= query) & (key > query - window))
    if not right:
        seen = "everything before it" if layer.window is None else f"the last {layer.window} positions"
        raise refuse(path, f"its mask is not that of a token that sees {seen}: chunks, or both directions")
