"""Layers of qwen3 that do several operations in one pass."""
