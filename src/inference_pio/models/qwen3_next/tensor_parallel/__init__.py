"""How qwen3_next is divided over ranks."""
