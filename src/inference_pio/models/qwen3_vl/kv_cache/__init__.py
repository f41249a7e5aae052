"""What qwen3_vl remembers."""
