"""The six benchmarks of qwen3_vl: what they measure is declared here, how is shared by all plugins."""
