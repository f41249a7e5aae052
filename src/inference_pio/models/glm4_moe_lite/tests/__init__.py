"""Tests of glm4_moe_lite, and what it brings to the contract tests."""
