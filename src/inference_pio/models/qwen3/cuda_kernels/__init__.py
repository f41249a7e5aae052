"""Operations of qwen3 that are fused on a device."""
