"""Operations of qwen2 that are fused on a device."""
