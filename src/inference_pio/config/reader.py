"""Strict reading of a model's configuration: every key is read, or listed as ignored with a reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

from inference_pio.errors import ModelFileError

T = TypeVar("T", int, float, bool, str)


class ConfigReader:
    """Reads keys with their type checked; leaving the `with` block with unread keys raises.

    Args:
        raw: the parsed file.
        path: named in errors.
        ignored: key -> why it does not matter here.

    Raises:
        ModelFileError: a key is missing, of another type, out of range, or unknown.
    """

    def __init__(self, raw: Mapping[str, Any], *, path: str, ignored: Mapping[str, str]) -> None:
        self.path = path
        self._raw, self._ignored = raw, ignored
        self._read: set[str] = set()

    def __enter__(self) -> ConfigReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            unknown = sorted(set(self._raw) - self._read - set(self._ignored))
            if unknown:
                self.refuse(
                    f"unknown keys {', '.join(unknown[:8])}{' …' if len(unknown) > 8 else ''}",
                    hint="this architecture does not know them, so the answers could be wrong",
                )

    def __contains__(self, key: str) -> bool:
        return self._raw.get(key) is not None

    def integer(self, key: str, *, default: int | None = None, low: int = 1, high: int = 2**31 - 1) -> int:
        value = self._typed(key, int, default)
        if not low <= value <= high:
            self.refuse(f"{value} is not between {low} and {high}", where=key)
        return value

    def number(self, key: str, *, default: float | None = None, positive: bool = True) -> float:
        raw = self._take(key, default)
        if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not math.isfinite(raw):
            self.refuse(f"must be a finite number, is {raw!r}", where=key)
        if positive and raw <= 0:
            self.refuse(f"must be above 0, is {raw!r}", where=key)
        return float(raw)

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        return self._typed(key, bool, default)

    def text(self, key: str, *, default: str | None = None) -> str:
        return self._typed(key, str, default)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object under `key`; empty where the key is missing or null."""
        value = self._take(key, {}) or {}
        if not isinstance(value, Mapping):
            self.refuse(f"must be an object, is {value!r}", where=key)
        return value

    def optional(self, key: str) -> Any:
        """The value as it is, None where it is missing; the caller checks it."""
        self._read.add(key)
        return self._raw.get(key)

    def token_id(self, key: str) -> int | None:
        """A token's number; None where the key is missing or says anything else, as -1 and lists do for "none"."""
        value = self.optional(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def refuse(self, what: str, *, where: str = "", hint: str = "") -> Any:
        raise ModelFileError(self.path, what, where=where, hint=hint)

    def _take(self, key: str, default: Any) -> Any:
        self._read.add(key)
        value = self._raw.get(key)
        if value is None:
            if default is None:
                self.refuse("is missing", where=key)
            return default
        return value

    def _typed(self, key: str, kind: type[T], default: T | None) -> T:
        value = self._take(key, default)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            self.refuse(f"must be {kind.__name__}, is {value!r}", where=key)
        return value  # type: ignore[no-any-return]
