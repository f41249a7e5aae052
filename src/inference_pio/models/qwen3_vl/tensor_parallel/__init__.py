"""How qwen3_vl is divided over ranks."""
