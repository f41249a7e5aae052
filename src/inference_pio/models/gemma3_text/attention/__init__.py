"""Attention of gemma3_text, and which of the standard's attention techniques apply to it."""
