"""What mistral remembers."""
