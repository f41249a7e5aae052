"""How glm4_moe_lite is divided over ranks."""
