"""Model plugins: one directory per architecture, named after the `model_type` of its config.json."""
