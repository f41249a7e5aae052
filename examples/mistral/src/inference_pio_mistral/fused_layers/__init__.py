"""Layers of mistral that do several operations in one pass."""
