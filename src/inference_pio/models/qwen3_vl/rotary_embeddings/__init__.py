"""Positions of qwen3_vl: of text and images in three axes, and of an image's patches in two."""
