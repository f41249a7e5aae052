"""Rotary positions of llama: default, and Llama 3's scaling by wavelength."""
