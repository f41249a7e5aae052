"""Rotary positions of qwen2: default, and YaRN for texts longer than those of the training."""
