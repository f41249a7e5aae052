"""The six benchmarks of llama: what they measure is declared here, how is shared by all plugins."""
