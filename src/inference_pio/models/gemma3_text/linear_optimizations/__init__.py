"""How gemma3_text's weights lie in memory."""
