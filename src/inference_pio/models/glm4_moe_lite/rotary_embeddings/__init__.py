"""Rotary positions of glm4_moe_lite, of a part of each query and of one key for all heads."""
