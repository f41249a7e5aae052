"""The cache of downloaded models: which are whole, how much room they take, who may change one now."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile

import filelock
import msgspec

from inference_pio.errors import ModelNotFound, ResourceError, UnavailableError
from inference_pio.loader.catalogue import NAME, Entry
from inference_pio.loader.partial import write_atomically
from inference_pio.loader.progress import file_sizes

SCRATCH_VARIABLE = "INFERENCE_PIO_SCRATCH"
_RECEIPT = "receipt.json"


class StoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    size: int
    sha256: str
    source: str


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes a folder a model: written last, so that without one nothing is there."""

    name: str
    licence: str
    date: str
    files: tuple[StoredFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)


class ModelStore:
    """`<home>/models/<name>/` holds one model and its receipt, `<home>/locks/` a lock for each,
    `<home>/stacks/` experts and layers of models, stored here or not, that are larger than memory, `<home>/prefixes/` a
    folder for each model, stored here or not, whose cached prefixes are kept on the disk.

    home         folder of the cache; by default what `default_home` says
    limit_bytes  what all models together may take; None is no limit

    In a process that may write to one folder only (`INFERENCE_PIO_SCRATCH`), stacks and prefixes lie there, and the
    limit is theirs.
    """

    def __init__(self, home: Path | None = None, *, limit_bytes: int | None = None) -> None:
        self.home = (home or default_home()).absolute()
        self.limit_bytes = limit_bytes
        self._models = self.home / "models"
        scratch = os.environ.get(SCRATCH_VARIABLE)
        made = self.home if scratch is None else Path(scratch)
        self._stacks = made / "stacks"
        self._prefixes = made / "prefixes"
        self._counted = [self._stacks, self._prefixes, *([self._models] if scratch is None else [])]

    def folder(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ModelNotFound(f"{name[:80]!r} is not a model name: use a-z, 0-9, '.', '_' and '-'")
        return self._models / name

    def path_of(self, entry: Entry) -> Path | None:
        """The model's file (its folder, where it has several), or None where it is not completely there."""
        receipt = self._receipt(entry.name)
        if receipt is None:
            return None
        stored = {file.name: file.sha256 for file in receipt.files}
        if stored != {file.name: file.sha256 for file in entry.files}:
            return None
        folder = self.folder(entry.name)
        return folder / entry.files[0].name if len(entry.files) == 1 else folder

    def installed(self) -> tuple[Receipt, ...]:
        """The receipts of all complete models, by name."""
        if not self._models.is_dir():
            return ()
        names = sorted(path.name for path in self._models.iterdir() if NAME.fullmatch(path.name))
        return tuple(receipt for name in names if (receipt := self._receipt(name)) is not None)

    def record(self, entry: Entry, sources: dict[str, str]) -> None:
        """Write the receipt of a model whose files were verified; `sources` maps file name to its origin."""
        files = tuple(
            StoredFile(file.name, file.size, file.sha256, sources[file.name]) for file in entry.files
        )
        receipt = Receipt(entry.name, entry.licence, datetime.now(UTC).isoformat(timespec="seconds"), files)
        write_atomically(
            self.folder(entry.name) / _RECEIPT, msgspec.json.format(msgspec.json.encode(receipt))
        )

    def remove(self, name: str) -> int:
        """Delete a model, or what an interrupted download left of it; returns the bytes freed."""
        folder = self.folder(name)
        if not folder.is_dir():
            raise ModelNotFound(f"{name!r} is not in {self._models}; downloaded: {self._names()}")
        with self.lock(name):
            paths = (folder, *folder.iterdir())
            made = [file for path in paths for file in (self.stacks_of(path), self.pages_of(path))]
            there = [path for path in made if path.is_file()]
            prefixes = [path for path in map(self.prefixes_of, paths) if path.is_dir()]
            freed = sum(path.stat().st_size for path in there)
            freed += sum(sum(file_sizes(path)) for path in (folder, *prefixes))
            for path in there:
                path.unlink()
            for path in prefixes:
                shutil.rmtree(path)
            # The receipt goes first: whatever is left if this is interrupted is no model.
            (folder / _RECEIPT).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=False)
        return freed

    def stacks_of(self, model: Path) -> Path:
        """Where the experts of the model at that path lie, if they are on the disk (`loader.stack_file`)."""
        return self._stacks / f"{_unique_name(model)}.stacks"

    def prefixes_of(self, model: Path) -> Path:
        """The folder of cached prefixes of the model at that path, if they are kept (`loader.prefix_store`)."""
        return self._prefixes / _unique_name(model)

    def pages_of(self, model: Path) -> Path:
        """Where the layers of the model at that path lie, if they are read when they are used (`loader.page_file`)."""
        return self.stacks_of(model).with_suffix(".pages")

    def disk_usage_bytes(self) -> int:
        """Bytes of all models and of what is kept for them on the disk, unfinished downloads included; of its own files
        in a process that may write to one folder only.
        """
        return sum(sum(file_sizes(folder)) for folder in self._counted)

    def require_room(self, name: str, needed: int) -> None:
        """Refuse, before anything is fetched, `needed` bytes that break the limit or do not fit the disk."""
        used = self.disk_usage_bytes()
        if self.limit_bytes is not None and used + needed > self.limit_bytes:
            if self._models not in self._counted:
                raise ResourceError(
                    f"{name} does not fit the disk limit: {_mb(used)} used + {_mb(needed)} needed > "
                    f"{_mb(self.limit_bytes)} allowed; raise disk_space_gb"
                )
            raise ResourceError(
                f"{name} does not fit the disk limit: {_mb(used)} used + {_mb(needed)} needed > "
                f"{_mb(self.limit_bytes)} allowed; remove a model ({self._names()}) or raise disk_space_gb"
            )
        free = free_bytes(self.home)
        if needed > free:
            raise UnavailableError(
                f"{name} does not fit the disk: {_mb(needed)} needed, {_mb(free)} free at {self.home}; "
                "free some, or set INFERENCE_PIO_HOME to a folder on another disk"
            )

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Only one process at a time may change a model; a second one waits here."""
        locks = self.home / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(locks / f"{name}.lock"):
            yield

    def _names(self) -> str:
        return ", ".join(receipt.name for receipt in self.installed()) or "none"

    def _receipt(self, name: str) -> Receipt | None:
        folder = self.folder(name)
        try:
            receipt = msgspec.json.decode((folder / _RECEIPT).read_bytes(), type=Receipt)
            sizes = {file.name: (folder / file.name).stat().st_size for file in receipt.files}
        except (OSError, msgspec.DecodeError):
            return None
        whole = all(sizes[file.name] == file.size for file in receipt.files)
        return receipt if whole and receipt.name == name else None


def default_home() -> Path:
    """`INFERENCE_PIO_HOME`, else `inference-pio` in the user's cache folder (XDG_CACHE_HOME is respected)."""
    if chosen := os.environ.get("INFERENCE_PIO_HOME"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise UnavailableError(f"INFERENCE_PIO_HOME {chosen!r}: {error}") from error
    cache = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    if os.path.isabs(cache):  # the XDG specification: a relative path is to be ignored
        return Path(cache) / "inference-pio"
    try:
        return Path.home() / ".cache" / "inference-pio"
    except RuntimeError as error:
        raise UnavailableError(
            "no home folder to keep models in; set INFERENCE_PIO_HOME to a folder"
        ) from error


def _unique_name(model: Path) -> str:
    path = model.absolute()
    return f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


def free_bytes(path: Path) -> int:
    """Bytes free where `path` is or would be made."""
    return shutil.disk_usage(existing(path)).free


def is_writable(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that is there, takes new files."""
    there = existing(folder)
    return there.is_dir() and os.access(there, os.W_OK)


def can_keep(file: Path, nbytes: int) -> bool:
    """Whether a file of that size is there for this process, or can be made by it, whatever it is locked out of."""
    with suppress(OSError), file.open("rb"):
        return True
    if sys.platform != "win32":
        import resource  # not on Windows

        if 0 <= resource.getrlimit(resource.RLIMIT_FSIZE)[0] < nbytes:
            return False
    with suppress(OSError), TemporaryFile(dir=existing(file.parent)):
        return True
    return False


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
