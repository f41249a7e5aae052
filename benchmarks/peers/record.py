"""Recorded runs: one JSON file a day and kind under docs/benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference_pio.errors import UsageError

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"


def write(kind: str, data: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """`<date>-<kind>.json`; a second run of the same day takes the place of the first."""
    file = folder / f"{datetime.now(UTC):%Y-%m-%d}-{kind}.json"
    file.write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return file


def last(kind: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The latest record of this kind; None where there is none. Raises UsageError where it is not JSON."""
    files = sorted(folder.glob(f"????-??-??-{kind}.json"))
    if not files:
        return None
    try:
        found = json.loads(files[-1].read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{files[-1]} is not JSON ({error}): delete it or bring it back") from error
    if not isinstance(found, dict):
        raise UsageError(f"{files[-1]} does not hold a record: delete it or bring it back")
    return {**found, "file": files[-1].name}
