"""Blocks of prefixes in files, for later runs of the same model.

One file per block, under the digest of its prefix, in a folder for everything that its contents depend on. A file is
written beside its name and renamed, so that no reader sees half of one; it is not flushed to the disk, because nothing
that is read is trusted: a checksum covers the whole file, and one that does not fit is deleted and the block computed.
The checksum finds what disks, crashes and other versions do. Whoever can write into the folder can also compute
checksums: it is readable and writable for its owner only.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import stat
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from inference_pio.cache.tiers import BlockData, StoredBlock

_log = logging.getLogger("inference_pio")

_MAGIC = b"PIOPFX01"
# Magic, key of the folder, digest, digest of the prefix before, number of tokens, bytes of the block.
_HEADER = struct.Struct("<8s32s32s32sIQ")
_CHECKSUM = 32
_GENERATION = "generation"
_GENERATION_BYTES = 16
_MOST_UNDERWAY = 64 * 2**20
_ABANDONED_SECONDS = 3600.0
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


class PrefixStore:
    """Implements `cache.tiers.PrefixTier` in the folder of one model. Processes may share a folder.

    Args:
        folder: of the model; what other versions, settings and checkpoints left in it counts towards the limit and is
            the first to go, being used no more.
        key: 32 bytes that differ where a block's contents would, for equal tokens.
        limit_bytes: of all files in the folder. Another process may exceed it by a sixteenth for a while.
    """

    def __init__(self, folder: Path, key: bytes, limit_bytes: int) -> None:
        self._folder, self._key, self.limit_bytes = folder, key, limit_bytes
        self._own = folder / key.hex()[:32]
        self.num_loaded = self.num_stored = self.num_dropped = self.num_broken = 0
        self._changed = threading.Condition()
        self._underway: dict[bytes, StoredBlock] = {}
        self._bytes_underway = 0
        self._room = bytearray()
        self._since_scan = limit_bytes  # the first file that is written makes it look what is there
        self._quiet = self._closing = False
        self._generation = secrets.token_bytes(_GENERATION_BYTES)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            for made in (folder, self._own):
                made.mkdir(mode=0o700, exist_ok=True)
                if stat.S_IMODE(made.stat().st_mode) != 0o700:
                    made.chmod(0o700)
            self._generation = self._read_generation()
        except OSError as error:
            self._fall_quiet(error)
        self._writer = threading.Thread(target=self._write_all, name="inference-pio-prefixes", daemon=True)
        self._writer.start()

    @property
    def generation(self) -> bytes:
        return self._generation

    @property
    def stats(self) -> dict[str, float]:
        """Blocks since it was opened."""
        return {
            "prefix_blocks_loaded": self.num_loaded,
            "prefix_blocks_stored": self.num_stored,
            "prefix_blocks_dropped": self.num_dropped,
            "prefix_blocks_broken": self.num_broken,
        }

    def load(self, parent: bytes, digests: Sequence[bytes]) -> Iterator[BlockData]:
        for digest in digests:
            waiting = self._underway.get(digest)
            data = waiting.data if waiting is not None else self._read(digest, parent)
            if data is None:
                return
            self.num_loaded += 1
            yield data
            parent = digest

    def following(self, parent: bytes) -> list[list[int]]:
        with self._changed:
            known = [list(block.token_ids) for block in self._underway.values() if block.parent == parent]
        for path in self._records():
            with suppress(OSError), path.open("rb") as file:
                head = file.read(_HEADER.size)
                if len(head) < _HEADER.size:
                    continue
                magic, key, _, before, count, _ = _HEADER.unpack(head)
                if (magic, key, before) == (_MAGIC, self._key, parent):
                    known.append(np.frombuffer(file.read(8 * count), dtype="<i8").tolist())
        return known

    def store(self, block: StoredBlock, *, wait: bool = False) -> None:
        size = len(block.data)
        with self._changed:
            while wait and self._bytes_underway + size > _MOST_UNDERWAY and self._underway:
                self._changed.wait()
            if self._quiet or self._closing or block.digest in self._underway:
                return
            if self._bytes_underway + size > _MOST_UNDERWAY and self._underway:
                self.num_dropped += 1
                return
            self._underway[block.digest] = block
            self._bytes_underway += size
            self._changed.notify_all()

    def forget(self) -> None:
        with self._changed:
            self._underway.clear()
            self._bytes_underway = 0
            self._generation = secrets.token_bytes(_GENERATION_BYTES)
            self._changed.notify_all()
        try:
            for path in self._records():
                path.unlink(missing_ok=True)
            _put(self._own / _GENERATION, self._generation)
        except OSError as error:
            self._fall_quiet(error)

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._writer.join()

    # Reading -----------------------------------------------------------------------------------------------------

    def _read_generation(self) -> bytes:
        path = self._own / _GENERATION
        with suppress(FileNotFoundError):
            stated = path.read_bytes()
            if len(stated) == _GENERATION_BYTES:
                return stated
        _put(path, self._generation)
        return path.read_bytes()  # another process may have been faster

    def _path(self, digest: bytes) -> Path:
        return self._own / f"{digest.hex()}.block"

    def _records(self) -> list[Path]:
        try:
            return list(self._own.glob("*.block"))
        except OSError:
            return []

    def _read(self, digest: bytes, parent: bytes) -> BlockData | None:
        """The block of that name; None where there is none, or none that is what it should be.

        All have one size and are read into the same memory, which the processor's caches then hold.
        """
        path = self._path(digest)
        try:
            with open(os.open(path, os.O_RDONLY | _NO_LINKS), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if len(self._room) != size:
                    self._room = bytearray(min(size, self.limit_bytes))
                whole = file.readinto(self._room) == size
        except OSError as error:
            if error.errno in (errno.EIO, errno.ELOOP):
                self._discard(path, error.strerror or str(error))
            return None
        data = _unpacked(self._room, self._key, digest, parent) if whole else None
        if data is None:
            self._discard(path, "its checksum or its place in the chain is not what it should be")
            return None
        _used_now(path)
        return data

    def _discard(self, path: Path, reason: str) -> None:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        self.num_broken += 1
        if self.num_broken == 1:
            _log.warning(
                "a cached prefix in %s is damaged (%s): it was deleted and is computed again; further ones are only "
                "counted",
                self._own,
                reason,
            )

    # Writing: everything below runs in the writer's thread --------------------------------------------------------

    def _write_all(self) -> None:
        while (block := self._next()) is not None:
            try:
                self._write(block)
            except OSError as error:
                self._fall_quiet(error)
            with self._changed:
                if self._underway.pop(block.digest, None) is not None:
                    self._bytes_underway -= len(block.data)
                self._changed.notify_all()

    def _next(self) -> StoredBlock | None:
        with self._changed:
            while not self._underway and not self._closing:
                self._changed.wait()
            return next(iter(self._underway.values()), None)

    def _write(self, block: StoredBlock) -> None:
        path = self._path(block.digest)
        if self._quiet:
            return
        if path.exists():
            _used_now(path)
            return
        record = _packed(block, self._key)
        if len(record) > self.limit_bytes:
            return
        self._make_room(len(record))
        _put(path, record)
        if block.digest not in self._underway:  # forgotten meanwhile
            path.unlink(missing_ok=True)
        self.num_stored += 1
        self._since_scan += len(record)

    def _make_room(self, needed: int) -> None:
        """Delete what was used longest ago. The folder is looked through now and then, for others write into it too."""
        if self._since_scan + needed <= self.limit_bytes // 16:
            return
        self._since_scan = 0
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        room = self.limit_bytes - self.limit_bytes // 16 - needed
        for _, size, path in files:
            if total <= room:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(last use, bytes, path) of all blocks of this model, whatever version wrote them."""
        long_ago = time.time() - _ABANDONED_SECONDS
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):
                found = path.stat()
                if path.suffix == ".block":
                    yield found.st_mtime, found.st_size, path
                elif path.name != _GENERATION and found.st_mtime < long_ago:
                    path.unlink(missing_ok=True)  # of a process that ended while it wrote

    def _fall_quiet(self, error: OSError) -> None:
        """Write no more. Answers do not depend on it, so nobody is interrupted for it."""
        if not self._quiet:
            _log.warning(
                "prefixes are no longer kept in %s: %s; answers are not affected",
                self._own,
                error.strerror or str(error),
            )
        self._quiet = True


def _used_now(path: Path) -> None:
    """The order in which files go; where times cannot be changed, that in which they came."""
    with suppress(OSError):
        os.utime(path)


def _put(path: Path, data: bytes) -> None:
    """Make the file hold all of `data`, whoever else writes it now."""
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o600), "wb") as file:
            file.write(data)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _packed(block: StoredBlock, key: bytes) -> bytes:
    tokens = np.asarray(block.token_ids, dtype="<i8").tobytes()
    head = _HEADER.pack(_MAGIC, key, block.digest, block.parent, len(block.token_ids), len(block.data))
    body = b"".join((head, tokens, block.data.tobytes()))
    return body + hashlib.sha256(body).digest()


def _unpacked(record: bytearray, key: bytes, digest: bytes, parent: bytes) -> BlockData | None:
    """The block in a record that is what it should be in every byte."""
    if len(record) < _HEADER.size + _CHECKSUM:
        return None
    body = memoryview(record)[:-_CHECKSUM]
    if hashlib.sha256(body).digest() != record[-_CHECKSUM:]:
        return None
    *stated, count, nbytes = _HEADER.unpack_from(record)
    start = _HEADER.size + 8 * count
    if stated != [_MAGIC, key, digest, parent] or len(body) != start + nbytes:
        return None
    return np.frombuffer(record, dtype=np.uint8, count=nbytes, offset=start)
