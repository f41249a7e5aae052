"""What gemma3_text's requests may share."""
