"""Runs as plain data: what is kept of one, and what goes from one process to another."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.report import Report
from inference_pio.errors import UsageError

VERSION = 1
_LARGEST = 64 << 20


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of some benchmarks.

    version     of this schema
    checkpoint  what tells the model's weights from others (`loader.identity`)
    options     what the caller set, by name in `RuntimeOptions`, the model's configuration and `Settings`
    finished    False where the run was interrupted: `reports` then has what was done
    """

    version: int
    date: str
    model: str
    plugin: str
    checkpoint: str
    options: dict[str, Any]
    reports: list[Report]
    finished: bool = True

    @property
    def machine(self) -> dict[str, str | int]:
        """Where it was measured; of its first report."""
        return self.reports[0].environment if self.reports else {}

    def report(self, benchmark: str) -> Report | None:
        return next((one for one in self.reports if one.benchmark == benchmark), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data; None where a figure is NaN, which JSON does not have."""
        plain = {name: getattr(self, name) for name in self.__struct_fields__}
        plain["reports"] = [report.as_dict() for report in self.reports]
        return plain

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self.as_dict()), indent=1) + b"\n"


def read_record(path: Path) -> Record:
    """The run that a file holds.

    Raises:
        UsageError: it cannot be read, or is not such a file.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path} is larger than any run: {path.stat().st_size / 1e6:.0f} MB")
        plain = msgspec.json.decode(path.read_bytes())
        if isinstance(plain, dict) and plain.get("version") != VERSION:
            raise UsageError(
                f"{path} is of version {plain.get('version')!r:.20}, this release reads {VERSION}: measure again"
            )
        return msgspec.convert(_with_nan(plain), Record)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not a run that was kept: {error}") from error


def read_report(plain: dict[str, Any]) -> Report:
    """What `Report.as_dict` made of one."""
    return msgspec.convert(_with_nan(plain), Report)


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Everything but whom to call."""
    kept = {one.name: getattr(settings, one.name) for one in fields(settings) if one.name != "on_round"}
    plain: dict[str, Any] = msgspec.to_builtins(kept)
    return plain


def read_settings(plain: dict[str, Any]) -> Settings:
    """What `plain_settings` made of them."""
    hints = {name: hint for name, hint in _hints().items() if name in plain}
    return Settings(**{name: msgspec.convert(plain[name], hint) for name, hint in hints.items()})


def _hints() -> dict[str, Any]:
    return get_type_hints(Settings)


def _with_nan(value: Any) -> Any:
    """NaN where None stands for it."""
    if isinstance(value, dict):
        return {name: _with_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value
