"""How qwen3's linear weights lie in memory."""
