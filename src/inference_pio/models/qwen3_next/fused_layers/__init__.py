"""Norms and feed-forward blocks of qwen3_next."""
