"""Rotary positions of qwen3_moe: default, and YaRN for texts longer than those of the training."""
