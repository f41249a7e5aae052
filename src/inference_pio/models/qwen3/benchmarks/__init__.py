"""The six benchmarks of qwen3: what they measure is declared here, how is shared by all plugins."""
