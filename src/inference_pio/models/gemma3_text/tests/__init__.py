"""Gemma 3's tests: `pytest src/inference_pio/models/gemma3_text/tests`."""
