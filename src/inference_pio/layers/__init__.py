"""Leaf modules that own one weight: linear, embedding, norm."""

from inference_pio.layers.embedding import VocabParallelEmbedding
from inference_pio.layers.linear import GatedLinear, Linear, RowParallelLinear, VocabParallelHead
from inference_pio.layers.norm import ResidualNorm, RMSNorm

__all__ = [
    "GatedLinear",
    "Linear",
    "RMSNorm",
    "ResidualNorm",
    "RowParallelLinear",
    "VocabParallelEmbedding",
    "VocabParallelHead",
]
