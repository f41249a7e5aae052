"""Mistral's tests: `pytest src/inference_pio_mistral/tests`."""
