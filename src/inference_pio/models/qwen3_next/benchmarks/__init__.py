"""The six benchmarks of qwen3_next: what they measure is declared here, how is shared by all plugins."""
