"""The six benchmarks of qwen3_moe: what they measure is declared here, how is shared by all plugins."""
