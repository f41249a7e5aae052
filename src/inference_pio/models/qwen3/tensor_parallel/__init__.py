"""How qwen3 is divided over ranks."""
