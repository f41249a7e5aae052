"""What llama remembers."""
