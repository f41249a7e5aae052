"""Measured values: memory, compute, power, disk; and the standard's record of them."""

from inference_pio.metrics.performance import PerformanceMetrics

__all__ = ["PerformanceMetrics"]
