"""The test sets: the part that comes with the package, or the complete file where the caller has it."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from inference_pio.errors import UsageError

Row = Mapping[str, Any]
_LARGEST = 64 << 20


@dataclass(frozen=True)
class TestSet:
    """One published test set.

    packaged  the file of the package with a part of it
    complete  the file with all of it, and the sha256 of its text
    """

    __test__ = False  # the name is no test's

    packaged: str
    complete: str
    sha256: str
    rows: int


SETS = {
    "lambada": TestSet(
        "lambada.jsonl.gz",
        "lambada_openai_test.jsonl",
        "65efa5227665844e48cb83e4a3cc1e8ebf80f57b5f6205c9f9ff35c8ed0c5d7b",
        5153,
    ),
    "mmlu": TestSet(
        "mmlu.jsonl.gz",
        "mmlu_test.jsonl",
        "903179ca496c3a80683685a3e4bcec761d2826df64682892cde15def955f6e7d",
        14042,
    ),
    "mmlu_dev": TestSet(
        "mmlu_dev.jsonl.gz",
        "mmlu_dev.jsonl",
        "0b841f7363db50b453f487870576f828e3b8bb106b6a721db67fa382e4a37ec8",
        285,
    ),
    "gsm8k": TestSet(
        "gsm8k.jsonl.gz",
        "gsm8k_test.jsonl",
        "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        1319,
    ),
    "humaneval": TestSet(
        "humaneval.jsonl.gz",
        "HumanEval.jsonl",
        "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2",
        164,
    ),
}


def rows_of(name: str, folder: str = "") -> list[Row]:
    """The questions of a test set: of the package, or all of them out of a folder.

    Raises:
        UsageError: the folder lacks the file, or holds another one under its name.
    """
    kind = SETS[name]
    if folder:
        text = _complete(kind, Path(folder).expanduser())
    else:
        packaged = resources.files("inference_pio.benchmarks").joinpath("data", kind.packaged)
        text = gzip.decompress(packaged.read_bytes())
    return [json.loads(line) for line in text.splitlines()]


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` of the rows, evenly over all of them; all where there are no more."""
    count = min(count, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def stratified(rows: Sequence[Row], key: str, count: int) -> list[Row]:
    """`count` of the rows with as equal a share of each value of `key` as can be, those of one value together."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    each, more = divmod(min(count, len(rows)), len(groups))
    favoured = {index * len(groups) // more for index in range(more)} if more else set()
    chosen = []
    for index, group in enumerate(groups.values()):
        chosen += spread(group, each + (index in favoured))
    return chosen


def _complete(kind: TestSet, folder: Path) -> bytes:
    for path in (folder / kind.complete, folder / f"{kind.complete}.gz"):
        if path.is_file():
            text = _read(path)
            found = hashlib.sha256(text).hexdigest()
            if found != kind.sha256:
                raise UsageError(
                    f"{path} is not the published file: sha256 of its text {found[:16]}…, expected {kind.sha256[:16]}…"
                )
            return text
    raise UsageError(f"{folder} holds neither {kind.complete} nor {kind.complete}.gz")


def _read(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if len(text) > _LARGEST:
        raise UsageError(f"{path} is larger than any test set: more than {_LARGEST >> 20} MiB")
    return bytes(text)
