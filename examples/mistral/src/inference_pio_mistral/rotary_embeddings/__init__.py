"""Rotary positions of mistral: default, and Llama 3's scaling by wavelength."""
