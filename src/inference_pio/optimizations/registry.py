"""Every technique by name, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from inference_pio.optimizations.attention.flash_attention import FlashAttention
from inference_pio.optimizations.attention.paged_attention import PagedAttentionInPlace
from inference_pio.optimizations.attention.shared_heads import GroupedQueryAttention, MultiQueryAttention
from inference_pio.optimizations.attention.sliding_window import SinkWindow, Window
from inference_pio.optimizations.attention.sparse import SparseDecode, SparsePrefill
from inference_pio.optimizations.hardware.bias_removal import BiasRemoval
from inference_pio.optimizations.hardware.compiled_step import CompiledStep
from inference_pio.optimizations.hardware.folded_norms import FoldedNorms
from inference_pio.optimizations.hardware.fused_layers import FusedLayerNorm
from inference_pio.optimizations.hardware.kernels import CudnnBenchmark, DeviceKernels
from inference_pio.optimizations.hardware.merged_projections import MergedProjections
from inference_pio.optimizations.hardware.shorter_vocabulary import ShorterVocabulary
from inference_pio.optimizations.hardware.skipped_layers import SkippedLayers
from inference_pio.optimizations.hardware.tensor_parallelism import TensorParallelism
from inference_pio.optimizations.hardware.weight_quantization import (
    CalibratedWeights,
    WeightsInt4,
    WeightsInt8,
)
from inference_pio.optimizations.memory.bounded_activations import (
    BoundedLogits,
    BoundedMLP,
    BoundedScores,
)
from inference_pio.optimizations.memory.disk_offload import DiskOffload
from inference_pio.optimizations.memory.eviction import KVEviction
from inference_pio.optimizations.memory.kv_compression import KVInt4, KVInt8
from inference_pio.optimizations.memory.prefix_caching import PrefixCaching, PrefixDiskTier
from inference_pio.optimizations.memory.recomputation import Recomputation
from inference_pio.optimizations.memory.tensor_paging import TensorPaging
from inference_pio.optimizations.technique import Technique

_IN_ORDER: tuple[Technique, ...] = (
    FlashAttention(),
    PagedAttentionInPlace(),
    MultiQueryAttention(),
    GroupedQueryAttention(),
    Window(),
    SparseDecode(),
    SparsePrefill(),
    SinkWindow(),
    FusedLayerNorm(),
    DeviceKernels(),
    CudnnBenchmark(),
    BoundedMLP(),
    BoundedLogits(),
    BoundedScores(),
    KVInt8(),
    KVInt4(),
    KVEviction(),
    Recomputation(),
    PrefixCaching(),
    PrefixDiskTier(),
    TensorPaging(),
    DiskOffload(),
    MergedProjections(),
    BiasRemoval(),
    FoldedNorms(),
    ShorterVocabulary(),
    SkippedLayers(),
    WeightsInt8(),
    WeightsInt4(),
    CalibratedWeights(),
    CompiledStep(),
    TensorParallelism(),
)

TECHNIQUES: Mapping[str, Technique] = MappingProxyType({technique.name: technique for technique in _IN_ORDER})


def families() -> dict[str, list[str]]:
    """The standard's words for them, each with the names of the techniques that are ways of it."""
    found: dict[str, list[str]] = {}
    for technique in _IN_ORDER:
        found.setdefault(technique.family, []).append(technique.name)
    return found
