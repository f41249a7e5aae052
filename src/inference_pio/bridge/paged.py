"""One step of a network over our caches: keys and values go in, attention is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference_pio import ops
from inference_pio.bridge.attention import AttentionCall, MaskFunction
from inference_pio.bridge.config import AttentionLayer
from inference_pio.cache.specs import KVCache
from inference_pio.plugin.batch import ForwardBatch

# T tokens of the step, N heads, M KV heads, H head_dim of queries and keys, V of values


class PagedStep:
    """A seam over paged caches: the network sees one row of T tokens, attention tells sequences apart.

    Rotation is the network's affair, so that `rope_and_cache` turns by an angle of 0: x · 1 - y · 0 is x.
    """

    def __init__(
        self,
        layers: Mapping[nn.Module, tuple[int, AttentionLayer]],
        batch: ForwardBatch,
        caches: Sequence[KVCache],
    ) -> None:
        self._layers, self._batch, self._caches = layers, batch, caches
        device = batch.token_ids.device
        self._origin = torch.zeros_like(batch.positions)
        self._no_angle = torch.tensor([[1.0, 0.0]], device=device)
        self._mask = torch.zeros(1, 1, 1, 1, device=device)

    def mask(self, allowed: MaskFunction, options: Mapping[str, Any]) -> Tensor:  # noqa: ARG002
        return self._mask

    def attend(self, call: AttentionCall) -> Tensor:
        index, layer = self._layers[call.module]
        batch, cache = self._batch, self._caches[index]
        v = call.v
        if layer.value_dim < layer.head_dim:
            v = functional.pad(v, (0, layer.head_dim - layer.value_dim))
        qkv_TE = torch.cat((call.q[0], call.k[0], v[0])).transpose(0, 1).flatten(1)
        q_TNH = ops.rope_and_cache(
            qkv_TE,
            self._origin,
            self._no_angle,
            cache.k,
            cache.v,
            batch.slot_mapping,
            layer.num_heads,
            layer.num_kv_heads,
            cache.scales,
        )
        o_TNH = ops.paged_attention(
            q_TNH,
            cache.k,
            cache.v,
            batch.block_tables,
            batch.query_start,
            batch.seq_lens,
            layer.scale,
            batch.max_query_len,
            batch.max_seq_len,
            cache.scales,
            layer.window,
        )
        return o_TNH[None, :, :, : layer.value_dim]
