"""Layers of qwen3_moe that do several operations in one pass."""
