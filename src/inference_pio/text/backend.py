"""Calls into the `tokenizers` library, its errors turned into ours.

The library reports a malformed file as a plain `Exception`, and a violated assumption of its own as a panic
whose class derives from `BaseException` and cannot be imported. Both are recognised exactly; everything
else passes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from inference_pio.errors import TokenizerError

Result = TypeVar("Result")


def guarded(path: Path, where: str, call: Callable[[], Result]) -> Result:
    """Run `call`; raise `TokenizerError` where the library refuses the data or panics over it."""
    try:
        return call()
    except BaseException as error:
        if not _from_library(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TokenizerError(path, f"the tokenizer cannot be used: {reason}", where=where) from error


def _from_library(error: BaseException) -> bool:
    kind = type(error)
    panic = kind.__name__ == "PanicException" and kind.__module__ == "pyo3_runtime"
    return panic or kind in (Exception, ValueError, TypeError, OverflowError)
