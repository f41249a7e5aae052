"""Measuring which options of the engine are best for a model on this machine."""
