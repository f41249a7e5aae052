"""Qwen3-MoE's tests: `pytest src/inference_pio/models/qwen3_moe/tests`."""
