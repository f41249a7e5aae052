"""Operations of qwen3_next that are fused on a device."""
