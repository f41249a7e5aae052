"""What each check says of a plugin, in words: the contract as `inference-pio verify` shows it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

from inference_pio.conformance.checks import Check
from inference_pio.conformance.subject import Subject, missing_reference, package_of
from inference_pio.errors import InferencePIOError
from inference_pio.plugin.manifest import Manifest

Verdict = Literal["passed", "failed", "not applicable", "not run"]


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    why  the cause where it failed, the reason where there was nothing to check or something to check with is missing
    """

    number: str
    name: str
    question: str
    verdict: Verdict
    why: str
    seconds: float


def outcomes(subject: Subject, checks: Sequence[Check]) -> Iterator[Outcome]:
    """One after the other; a check that fails or falls over does not keep the others from being run."""
    for check in checks:
        started = perf_counter()
        verdict, why = _verdict(check, subject)
        yield Outcome(check.number, check.name, check.question, verdict, why, perf_counter() - started)


def _verdict(check: Check, subject: Subject) -> tuple[Verdict, str]:
    if reason := check.inapplicable(subject):
        return "not applicable", reason
    try:
        check.run(subject)
    except AssertionError as error:
        return "failed", str(error) or f"an assertion without words {_place(error, subject.manifest)}"
    except Exception as error:  # noqa: BLE001 - whatever a stranger's plugin raises is what there is to say of it
        if missing := missing_reference(error):
            return "not run", missing
        if isinstance(error, InferencePIOError):
            return "failed", str(error)
        where = _place(error, subject.manifest)
        return "failed", f"the check ended in {type(error).__name__}: {error} {where}"
    return "passed", ""


def _place(error: BaseException, manifest: Manifest) -> str:
    """Where it happened: the innermost line of the plugin's own code, or of anybody's where none took part."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = f"{os.sep}{package_of(manifest).replace('.', os.sep)}{os.sep}"
    own = [frame for frame in frames if inside in frame.filename]
    last = (own or frames)[-1]
    shown = last.filename.rpartition(inside)[2] if own else Path(last.filename).name
    return f"({shown}:{last.lineno})"
