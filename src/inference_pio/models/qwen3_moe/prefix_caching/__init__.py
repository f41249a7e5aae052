"""What qwen3_moe's requests may share."""
