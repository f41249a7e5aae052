"""Rotary positions of mistral."""
