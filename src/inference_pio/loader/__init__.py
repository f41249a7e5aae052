"""From what a user calls a model to a filled model: finding, fetching, reading checkpoints, applying weight maps."""
