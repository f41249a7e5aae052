"""How glm4_moe_lite's linear weights lie in memory."""
