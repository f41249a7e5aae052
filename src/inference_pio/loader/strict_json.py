"""JSON out of files that somebody else wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from inference_pio.errors import ModelFileError
from inference_pio.given import is_there
from inference_pio.loader.regular_file import read_whole

_MAX_BYTES = 4 * 2**20


def read_json_object(file: Path) -> dict[str, Any]:
    """One JSON object out of a small file, strictly.

    Raises:
        ModelFileError: there is no such file, it is too large, or is anything else.
    """
    if not is_there(file):
        raise ModelFileError(
            file, "no such file", hint="a model directory has config.json beside its weights"
        )
    return strict_object(read_whole(file, _MAX_BYTES, "a configuration"), file, "")


def strict_object(data: bytes, path: Path, where: str) -> dict[str, Any]:
    """One JSON object in UTF-8, without repeated keys, NaN or infinity at any depth.

    Raises:
        ModelFileError: it is anything else.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ModelFileError(path, f"{twice!a} appears twice", where=where)
        return found

    def refuse(constant: str) -> float:
        raise ModelFileError(path, f"{constant:.40} is not JSON, or no finite number", where=where)

    def finite(number: str) -> float:
        value = float(number)
        return value if math.isfinite(value) else refuse(number)

    try:
        value = json.loads(
            data.decode(), object_pairs_hook=distinct, parse_constant=refuse, parse_float=finite
        )
    except RecursionError as error:
        raise ModelFileError(path, "is nested too deep", where=where) from error
    except ValueError as error:  # of JSON, of UTF-8, or a number of thousands of digits
        raise ModelFileError(path, f"is not JSON: {error}", where=where) from error
    if not isinstance(value, dict):
        raise ModelFileError(path, f"must be a JSON object, is a {type(value).__name__}", where=where)
    return value
