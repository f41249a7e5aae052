"""Gated attention and gated DeltaNet of qwen3_next, and which of the standard's attention techniques apply to it."""
