"""Operations of qwen3_moe that are fused on a device."""
