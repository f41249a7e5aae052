"""A file that is being put together: what is already there, and when it is whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex

import msgspec

from inference_pio.errors import DownloadError
from inference_pio.loader.catalogue import CatalogueFile

_CHUNK = 1 << 20


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Beside the `.part` file: of which source and which target, and how much of it is certain."""

    source: str
    sha256: str
    parts: int
    written: int


class PartialFile:
    """`<name>.part` grows part by part and becomes `<name>` only when size and sha256 are right.

    After an interruption the parts that were complete are kept; the bytes of an incomplete one are cut off.
    Bytes of another source or for another checksum are discarded. `parts` counts complete parts, `written`
    the bytes of them.
    """

    def __init__(self, folder: Path, file: CatalogueFile, source: str) -> None:
        self._file, self._source = file, source
        self._target = folder / file.name
        self._part = folder / f"{file.name}.part"
        self._state = folder / f"{file.name}.part.json"
        self._hash = hashlib.sha256()
        self.parts = self.written = 0
        self._resume()

    def append(self, chunks: Iterable[bytes]) -> None:
        """Add one complete part; raises DownloadError as soon as more bytes come than the file has."""
        written = self.written
        digest = self._hash.copy()
        with self._part.open("r+b" if self._part.exists() else "wb") as out:
            out.seek(written)
            out.truncate()
            for chunk in chunks:
                written += len(chunk)
                if written > self._file.size:
                    raise DownloadError(
                        f"more than the {self._file.size} bytes that {self._file.name} has were delivered"
                    )
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        self._hash, self.written, self.parts = digest, written, self.parts + 1
        write_atomically(
            self._state,
            msgspec.json.encode(_State(self._source, self._file.sha256, self.parts, self.written)),
        )

    def finish(self) -> None:
        """Give the file its name, or discard it and raise DownloadError saying what differs."""
        size, sha256 = self.written, self._hash.hexdigest()
        if (size, sha256) != (self._file.size, self._file.sha256):
            self.discard()
            raise DownloadError(difference(self._file, size, sha256))
        self._part.replace(self._target)
        self._state.unlink()

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)
        self._hash, self.parts, self.written = hashlib.sha256(), 0, 0

    def _resume(self) -> None:
        try:
            state = msgspec.json.decode(self._state.read_bytes(), type=_State)
            there = self._part.stat().st_size
        except (FileNotFoundError, msgspec.DecodeError):
            return self.discard()
        if (state.source, state.sha256) != (self._source, self._file.sha256) or there < state.written:
            return self.discard()
        with self._part.open("r+b") as out:
            out.truncate(state.written)
        self._hash = hash_file(self._part)
        self.parts, self.written = state.parts, state.written
        return None


def difference(file: CatalogueFile, size: int, sha256: str) -> str:
    """One line on how what came differs from what the catalogue says."""
    if size != file.size:
        return f"{file.name} has {size} bytes, the catalogue says {file.size}"
    return f"{file.name} has sha256 {sha256[:12]}…, the catalogue says {file.sha256[:12]}…"


def hash_file(path: Path) -> hashlib._Hash:
    """The sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest


def write_atomically(path: Path, data: bytes) -> None:
    """After this the file holds all of `data`; after a crash or on a full disk, what it held before. Of two processes
    that write at once the last one's data stay, whole: each has a draft of its own.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}-{token_hex(4)}.tmp")
    try:
        with draft.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file, and nobody knows the draft
        raise
