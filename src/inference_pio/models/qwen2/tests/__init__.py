"""Qwen2's tests: `pytest src/inference_pio/models/qwen2/tests`."""
