"""How qwen3_vl's linear weights lie in memory."""
