"""The six benchmarks of glm4_moe_lite: what they measure is declared here, how is shared by all plugins."""
