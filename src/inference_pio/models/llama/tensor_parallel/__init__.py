"""How llama is divided over ranks."""
