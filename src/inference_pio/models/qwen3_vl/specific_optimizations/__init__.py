"""Optimisations that follow from what this model is asked for; each has a benchmark beside it."""
