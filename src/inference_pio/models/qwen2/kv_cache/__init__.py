"""What qwen2 remembers."""
