"""How mistral is divided over ranks."""
