"""Qwen3's tests: `pytest src/inference_pio/models/qwen3/tests`."""
