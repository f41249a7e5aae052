"""The six benchmarks of qwen2: what they measure is declared here, how is shared by all plugins."""
