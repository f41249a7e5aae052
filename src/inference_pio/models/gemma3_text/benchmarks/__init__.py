"""The six benchmarks of gemma3_text: what they measure is declared here, how is shared by all plugins."""
