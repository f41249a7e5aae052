"""Techniques that suit the hardware."""
