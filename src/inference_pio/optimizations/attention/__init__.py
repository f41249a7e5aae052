"""Techniques of attention."""
