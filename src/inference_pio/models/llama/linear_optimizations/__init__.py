"""How llama's linear weights lie in memory."""
