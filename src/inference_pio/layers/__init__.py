"""Leaf modules that own one weight, or one kind of it: linear, embedding, norm, experts."""

from inference_pio.layers.embedding import VocabParallelEmbedding
from inference_pio.layers.experts import Experts
from inference_pio.layers.linear import GatedLinear, Linear, RowParallelLinear, VocabParallelHead
from inference_pio.layers.norm import ResidualNorm, RMSNorm

__all__ = [
    "Experts",
    "GatedLinear",
    "Linear",
    "RMSNorm",
    "ResidualNorm",
    "RowParallelLinear",
    "VocabParallelEmbedding",
    "VocabParallelHead",
]
