"""The command line that was typed, for verbs that have to run it again."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

typed: ContextVar[Sequence[str]] = ContextVar("typed", default=())
