"""Every technique by name, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from inference_pio.optimizations.attention.flash_attention import FlashAttention
from inference_pio.optimizations.attention.paged_attention import PagedAttentionInPlace
from inference_pio.optimizations.attention.sliding_window import SinkWindow, Window
from inference_pio.optimizations.attention.sparse import SparseDecode, SparsePrefill
from inference_pio.optimizations.hardware.fused_layers import FusedLayerNorm
from inference_pio.optimizations.memory.kv_compression import KVInt8
from inference_pio.optimizations.memory.prefix_caching import PrefixCaching
from inference_pio.optimizations.technique import Technique

_IN_ORDER: tuple[Technique, ...] = (
    FlashAttention(),
    PagedAttentionInPlace(),
    Window(),
    SparseDecode(),
    SparsePrefill(),
    SinkWindow(),
    FusedLayerNorm(),
    KVInt8(),
    PrefixCaching(),
)

TECHNIQUES: Mapping[str, Technique] = MappingProxyType({technique.name: technique for technique in _IN_ORDER})
