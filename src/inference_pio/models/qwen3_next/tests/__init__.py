"""Qwen3-Next's tests: `pytest src/inference_pio/models/qwen3_next/tests`."""
