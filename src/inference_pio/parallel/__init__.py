"""Tensor parallelism: which part of a model a rank holds, and how ranks add up their results."""

from inference_pio.parallel.group import ProcessGroup, Shard, SimulatedGroup, SingleRank

__all__ = ["ProcessGroup", "Shard", "SimulatedGroup", "SingleRank"]
