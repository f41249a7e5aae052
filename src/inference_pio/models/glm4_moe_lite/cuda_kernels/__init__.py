"""Operations of glm4_moe_lite that a device could do in one pass."""
