"""What qwen2's requests may share."""
