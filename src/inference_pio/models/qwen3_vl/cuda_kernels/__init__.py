"""Operations of qwen3_vl that are fused on a device."""
