"""Operations of llama that are fused on a device."""
