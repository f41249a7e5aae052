"""Layers of qwen3_vl that do several operations in one pass, and the vision tower's feed-forward side."""
