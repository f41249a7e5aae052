"""Qwen3-VL's tests: `pytest src/inference_pio/models/qwen3_vl/tests`."""
