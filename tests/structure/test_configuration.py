"""C15: every field of the configuration is read by something."""

from __future__ import annotations

import ast
from dataclasses import fields
from typing import Any

from inference_pio.config import BaseModelConfig
from inference_pio.optimizations.registry import TECHNIQUES


def _read(sources: list[Any]) -> set[str]:
    """Attributes that code outside `config/` and outside tests reads, and flags that techniques state by name."""
    flags = {flag for technique in TECHNIQUES.values() for flag in technique.flags}
    return flags | {
        node.attr
        for source in sources
        if not source.name.startswith("inference_pio.config") and ".tests" not in source.name
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_field_is_read(sources: list[Any]) -> None:
    unread = {field.name for field in fields(BaseModelConfig)} - _read(sources)
    assert not unread, f"nothing reads {', '.join(sorted(unread))}"
