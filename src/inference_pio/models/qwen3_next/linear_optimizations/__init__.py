"""How qwen3_next's weights lie in memory: what is merged, stacked, kept exact, left out."""
