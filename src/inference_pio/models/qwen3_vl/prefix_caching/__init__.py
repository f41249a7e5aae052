"""What qwen3_vl's requests may share."""
