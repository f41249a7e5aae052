"""Attention of qwen3, and which of the standard's attention techniques apply to it."""
