"""What qwen3_next remembers."""
