"""Runs that were kept: a JSON file each in the model cache, found by path, by id or by number from the last."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from inference_pio.benchmarks.compare import Change, changes, same_machine
from inference_pio.benchmarks.records import VERSION, Record, read_record
from inference_pio.benchmarks.report import Report
from inference_pio.errors import UsageError
from inference_pio.loader.partial import write_atomically
from inference_pio.loader.store import default_home

_LAST = re.compile(r"last(?:~(\d{1,6}))?")
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9._-]+")
_FILE = re.compile(r"[0-9]{8}T[0-9]{6}Z(?:-[0-9]{1,3})?\.json")


class History:
    """`<home>/bench/<model>/<timestamp>.json`; a run's id is `<model>/<timestamp>`."""

    def __init__(self, home: Path | None = None) -> None:
        self.folder = (home or default_home()).absolute() / "bench"

    def save(self, record: Record) -> str:
        """Keep a run; its id."""
        folder = self.folder / folder_name(record.model)
        folder.mkdir(parents=True, exist_ok=True)
        stamp = f"{datetime.fromisoformat(record.date).astimezone(UTC):%Y%m%dT%H%M%SZ}"
        path, again = folder / f"{stamp}.json", 1
        while path.exists():
            again += 1
            path = folder / f"{stamp}-{again}.json"
        write_atomically(path, record.encode())
        return self.id_of(path)

    def paths(self, model: str = "") -> list[Path]:
        """Of all runs, or of a model's, from the first to the last."""
        folders = [self.folder / folder_name(model)] if model else self._folders()
        found = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
        kept = [path for path in found if _FILE.fullmatch(path.name)]
        return sorted(kept, key=lambda path: (_stamp(path), path.parent.name))

    def records(self, model: str = "") -> Iterator[tuple[str, Record | str]]:
        """(id, run) from the first to the last; of a file that cannot be read why not."""
        for path in self.paths(model):
            try:
                yield self.id_of(path), read_record(path)
            except UsageError as error:
                yield self.id_of(path), str(error)

    def find(self, reference: str, model: str = "") -> Record:
        """The run that a path, an id, `last` or `last~N` (N runs before the last one) names.

        `last` counts the runs of `model`; where that is empty, of the model that was measured last.

        Raises:
            UsageError: there is none, or it cannot be read.
        """
        if match := _LAST.fullmatch(reference):
            return self._nth(int(match[1] or 0), model)
        path = Path(reference).expanduser()
        if path.is_file():
            return read_record(path)
        name, _, stamp = reference.rpartition("/")
        kept = self.folder / folder_name(name) / f"{stamp.removesuffix('.json')}.json"
        if name and _FILE.fullmatch(kept.name) and kept.is_file():
            return read_record(kept)
        raise UsageError(
            f"no run is called {reference!r:.100}: name a file, an id of `bench history`, last or last~N"
        )

    def id_of(self, path: Path) -> str:
        return f"{path.parent.name}/{path.stem}"

    def _nth(self, back: int, model: str) -> Record:
        paths = self.paths(model)
        if paths and not model:
            paths = [path for path in paths if path.parent == paths[-1].parent]
        if back >= len(paths):
            whose = f" of {model}" if model else f" of {paths[-1].parent.name}" if paths else ""
            raise UsageError(
                f"there are {len(paths)} runs{whose} in {self.folder}, none is last~{back}: measure one first"
            )
        return read_record(paths[-1 - back])

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []


def _stamp(path: Path) -> tuple[str, int]:
    stamp, _, again = path.stem.partition("-")
    return stamp, int(again or 1)


def folder_name(model: str) -> str:
    """A model's name, hub id or path as the name of a folder."""
    name = _NOT_IN_A_NAME.sub("-", model.lower().replace("/", "--")).strip(".-_")
    return name[:100] or "model"


def record_of(
    model: str,
    plugin: str,
    checkpoint: str,
    options: dict[str, object],
    reports: list[Report],
    finished: bool,
) -> Record:
    """A run that ends now."""
    return Record(
        version=VERSION,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        plugin=plugin,
        checkpoint=checkpoint,
        options=options,
        reports=reports,
        finished=finished,
    )


def diff(then: Record, now: Record) -> tuple[list[Change], list[str]]:
    """Every figure that both runs have, and in words what besides the figures differs.

    Runs of other machines, checkpoints or options tell nothing of each other.
    """
    notes = []
    if not same_machine(now.machine, then.machine):
        notes.append(f"another machine: {_machine(then)}, now {_machine(now)}")
    if now.checkpoint != then.checkpoint:
        a, b = (f"{record.model} ({record.checkpoint[:12]})" for record in (then, now))
        notes.append(f"another checkpoint: {a}, now {b}")
    for name in sorted(then.options.keys() | now.options.keys()):
        a, b = (record.options.get(name, "(default)") for record in (then, now))
        if a != b:
            notes.append(f"another {name}: {a}, now {b}")
    why_not = notes[0].partition(":")[0] if notes else ""
    found = [
        change
        for report in now.reports
        if (before := then.report(report.benchmark)) is not None
        for change in changes(before, report, why_not)
    ]
    if then.machine and (versions := _versions(then, now)):
        notes.append(versions)
    return found, notes


def _machine(record: Record) -> str:
    return ", ".join(f"{record.machine.get(fact, '?')} {fact}" for fact in ("cpu", "cores", "threads"))


def _versions(then: Record, now: Record) -> str:
    """What was run, where it differs; that is what a comparison is about, and no reason to tell nothing."""
    parts = [
        f"{fact} {then.machine.get(fact)}, now {now.machine.get(fact)}"
        for fact in ("inference_pio", "torch", "cpu_kernels")
        if then.machine.get(fact) != now.machine.get(fact)
    ]
    return "; ".join(parts)
