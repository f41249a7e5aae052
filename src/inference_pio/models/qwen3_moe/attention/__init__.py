"""Attention of qwen3_moe, and which of the standard's attention techniques apply to it."""
