"""How qwen2's linear weights lie in memory, and what its biases are worth."""
