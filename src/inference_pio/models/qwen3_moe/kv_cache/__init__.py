"""What qwen3_moe remembers."""
