"""Configuration fields that nothing reads, with what will serve each: there are none, and there are to be none."""

from __future__ import annotations

from collections.abc import Mapping

DEFERRED_FIELDS: Mapping[str, str] = {}
