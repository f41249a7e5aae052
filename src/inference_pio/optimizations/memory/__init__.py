"""Techniques that spend less memory."""
