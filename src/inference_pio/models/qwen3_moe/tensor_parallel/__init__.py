"""How qwen3_moe is divided over ranks."""
