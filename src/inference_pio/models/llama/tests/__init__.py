"""Llama's tests: `pytest src/inference_pio/models/llama/tests`."""
