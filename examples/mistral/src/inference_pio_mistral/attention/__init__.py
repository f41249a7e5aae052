"""Attention of mistral, and which of the standard's attention techniques apply to it."""
