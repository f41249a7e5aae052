"""Operations of gemma3_text that are fused on a device."""
