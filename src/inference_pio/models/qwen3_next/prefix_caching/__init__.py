"""What qwen3_next's requests may share."""
