"""Attention of qwen2, and which of the standard's attention techniques apply to it."""
