"""Operations of mistral that are fused on a device."""
