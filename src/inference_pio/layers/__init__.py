"""Modules that recur in every model: linear, embedding, norm, feed-forward block, experts."""

from inference_pio.layers.embedding import VocabParallelEmbedding
from inference_pio.layers.experts import Experts
from inference_pio.layers.feed_forward import GatedMLP
from inference_pio.layers.linear import GatedLinear, Linear, RowParallelLinear, VocabParallelHead
from inference_pio.layers.norm import ResidualNorm, RMSNorm
from inference_pio.layers.rows import keep_rows

__all__ = [
    "Experts",
    "GatedLinear",
    "GatedMLP",
    "Linear",
    "RMSNorm",
    "ResidualNorm",
    "RowParallelLinear",
    "VocabParallelEmbedding",
    "VocabParallelHead",
    "keep_rows",
]
