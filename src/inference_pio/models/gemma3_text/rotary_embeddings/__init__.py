"""Rotary positions of gemma3_text: one table for full layers, another for sliding ones."""
