"""How gemma3_text is divided over ranks."""
