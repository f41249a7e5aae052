"""How mistral's linear weights lie in memory."""
