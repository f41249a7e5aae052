"""Layers of llama that do several operations in one pass."""
