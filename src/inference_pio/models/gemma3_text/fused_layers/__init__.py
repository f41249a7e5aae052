"""Layers of gemma3_text that do several operations in one pass."""
