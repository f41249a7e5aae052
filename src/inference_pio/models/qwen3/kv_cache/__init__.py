"""What qwen3 remembers."""
