"""Tensor parallelism: which part of a model a rank holds, and how ranks add up their results."""

from inference_pio.parallel.group import ProcessGroup, Shard, SimulatedGroup, SingleRank
from inference_pio.parallel.ranked import RankedModel

__all__ = ["ProcessGroup", "RankedModel", "Shard", "SimulatedGroup", "SingleRank"]
