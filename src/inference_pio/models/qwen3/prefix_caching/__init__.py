"""What qwen3's requests may share."""
