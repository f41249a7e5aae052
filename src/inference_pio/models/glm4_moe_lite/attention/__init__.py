"""Latent attention of glm4_moe_lite, and which of the standard's attention techniques apply to it."""
