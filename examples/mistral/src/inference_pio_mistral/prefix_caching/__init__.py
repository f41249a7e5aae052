"""What mistral's requests may share."""
