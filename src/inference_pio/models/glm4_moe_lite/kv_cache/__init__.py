"""What glm4_moe_lite remembers."""
