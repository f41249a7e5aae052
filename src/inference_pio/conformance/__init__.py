"""The contract tests as a library: what every plugin, built-in or not, must pass."""
