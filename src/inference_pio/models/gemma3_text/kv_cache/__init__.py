"""What gemma3_text remembers."""
