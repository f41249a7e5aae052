"""The six benchmarks of mistral: what they measure is declared here, how is shared by all plugins."""
