"""Layers of qwen2 that do several operations in one pass."""
