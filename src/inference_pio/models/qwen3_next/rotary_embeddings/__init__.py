"""Rotary positions of qwen3_next: over a quarter of each head."""
