"""How qwen3_moe's weights lie in memory."""
