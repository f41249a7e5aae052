"""What llama's requests may share."""
