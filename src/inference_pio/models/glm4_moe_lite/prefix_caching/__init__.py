"""What glm4_moe_lite's requests may share."""
