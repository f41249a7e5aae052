"""Attention of qwen3_vl, of its text and of its vision tower, and which of the standard's techniques apply to it."""
