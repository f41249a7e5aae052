"""Get one model of the catalogue into the store: licence, lock, room, sources in order, receipt."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference_pio.errors import DownloadError, UnavailableError
from inference_pio.loader.catalogue import CatalogueFile, Entry, HubSource, Source
from inference_pio.loader.download_hub import Hub, fetch_hub_file
from inference_pio.loader.download_package import fetch_packages, working_room
from inference_pio.loader.partial import hash_file
from inference_pio.loader.progress import Progress, silent
from inference_pio.loader.rate import Bucket
from inference_pio.loader.store import ModelStore

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def pull(
    entry: Entry,
    store: ModelStore,
    *,
    progress: Progress | None = None,
    accept_licence: bool = False,
    bucket: Bucket | None = None,
) -> Path:
    """The path of the model's file (or folder of files), downloaded if it is not there.

    Two processes may pull at once: the second waits and finds it done. Raises UnavailableError where the
    licence is not accepted or the disk is full, ResourceError where the store's limit is too small, and
    DownloadError with one reason for each source where none gives the file.
    """
    if (path := store.path_of(entry)) is not None:
        return path
    if entry.licence_terms is not None and not accept_licence:
        raise UnavailableError(
            f"{entry.name} comes under its own licence: {entry.licence_terms} Accept it with "
            f"--accept-licence (accept_licence=True)"
        )
    folder = store.folder(entry.name)
    with _disk_errors(entry, folder), store.lock(entry.name):
        if (path := store.path_of(entry)) is not None:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(entry, folder)
        missing = [file for file in entry.files if not _complete(file, folder)]
        store.require_room(entry.name, _needed(missing, folder))
        sources = {file.name: "already there" for file in entry.files}
        for file in missing:
            sources[file.name] = _fetch(entry, file, folder, progress or silent, bucket)
        store.record(entry, sources)
    path = store.path_of(entry)
    if path is None:
        raise DownloadError(f"{entry.name} was removed from {folder} while it was downloaded; try again")
    return path


def _fetch(entry: Entry, file: CatalogueFile, folder: Path, progress: Progress, bucket: Bucket | None) -> str:
    """Try the file's sources in order; returns the one that worked."""
    reasons = []
    for source in file.sources:
        try:
            _fetch_from(source, file, folder, progress, bucket)
        except DownloadError as error:
            reasons.append(f"{source}: {error}")
        else:
            return str(source)
    raise DownloadError(
        f"{entry.name} could not be downloaded. {'; '.join(reasons)}. "
        "Try again, or give the path of a local file"
    )


def _fetch_from(
    source: Source, file: CatalogueFile, folder: Path, progress: Progress, bucket: Bucket | None
) -> None:
    if isinstance(source, HubSource):
        fetch_hub_file(source, file, folder, progress, Hub(bucket=bucket))
    else:
        fetch_packages(source, file, folder, progress, bucket)


def _complete(file: CatalogueFile, folder: Path) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size and hash_file(path).hexdigest() == file.sha256


def _needed(missing: list[CatalogueFile], folder: Path) -> int:
    """Bytes that the download will add at its peak: what is not there yet, and room for one archive."""
    total = sum(file.size for file in missing)
    for file in missing:
        part = folder / f"{file.name}.part"
        total -= min(file.size, part.stat().st_size) if part.exists() else 0
    return total + max((working_room(file) for file in missing), default=0)


def _sweep(entry: Entry, folder: Path) -> None:
    """Remove what a killed download left and what an older catalogue named; keep what can be resumed."""
    keep = {
        name for file in entry.files for name in (file.name, f"{file.name}.part", f"{file.name}.part.json")
    }
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _disk_errors(entry: Entry, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise UnavailableError(
                f"the disk is full at {folder}: {entry.name} needs {entry.size_bytes / 1e6:.1f} MB; "
                "free some and try again (complete parts are kept), or set INFERENCE_PIO_HOME "
                "to a folder on another disk"
            ) from error
        raise UnavailableError(
            f"cannot write to {folder}: {error.strerror or error}; make it writable, "
            "or set INFERENCE_PIO_HOME"
        ) from error
