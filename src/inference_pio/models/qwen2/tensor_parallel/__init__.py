"""How qwen2 is divided over ranks."""
