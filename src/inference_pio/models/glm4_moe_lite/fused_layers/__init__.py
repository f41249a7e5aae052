"""Layers of glm4_moe_lite that do several operations in one pass, and its experts."""
