"""Rotary positions of qwen3: default, and YaRN for texts longer than those of the training."""
