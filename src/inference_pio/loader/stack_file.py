"""Stacks of weights in a file that is mapped into memory, for mixtures whose experts are larger than it.

The system keeps the pages that are used in memory, as far as there is room, and reads the others again when they are
wanted. The file holds blocks as the kernels read them, so it is written once and mapped from then on.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import filelock
import numpy as np
import torch
from torch import Tensor

from inference_pio.errors import ResourceError
from inference_pio.loader.weight_plan import WeightPlan
from inference_pio.ops import native

HEADER_BYTES = 4096  # in front of the stacks: a whole page
_ALIGNMENT = 64


class StackFile:
    """Hands out pieces of the file in the order in which they lie in it, as `ops.Slab` does of memory.

    complete  the file was there: what the pieces hold is what was put into them when it was written
    """

    def __init__(
        self,
        path: Path,
        key: str,
        sizes: list[int],
        require_room: Callable[[int], None],
        holds: str = "experts on disk",
    ) -> None:
        """Map the file of that key, or one that is to be filled: it replaces `path` when `finish` is called.

        Args:
            holds: what it is, for errors.

        Raises:
            ResourceError: the disk has no room for it, or another process is writing it.
        """
        self._path, self._holds, self._header = path, holds, key.encode().ljust(HEADER_BYTES, b"\0")
        self._used = HEADER_BYTES
        self._size = HEADER_BYTES + sum(_aligned(size) for size in sizes)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"{holds} need a file, and {path.parent} cannot be made: {error.strerror}; a model in a worker may "
                "write where it has a disk_space_gb, at low_trust where an option asks for files"
            ) from error
        self._lock = filelock.FileLock(f"{path}.lock")
        self.complete = self._is_complete()
        self._memory = torch.empty(0, dtype=torch.uint8) if self.complete else self._create(require_room)
        if self.complete:
            self._memory = self._mapped(os.open(path, os.O_RDONLY | _NO_LINKS), writable=False)

    def take(self, nbytes: int) -> Tensor:
        """uint8 [nbytes], aligned to cache lines."""
        piece = self._memory.narrow(0, self._used, nbytes)
        self._used += _aligned(nbytes)
        return piece

    def let_go(self, pieces: Tensor) -> None:
        """Pages of a filled stretch, whole ones, leave this process's memory; the system writes them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            first = pieces.data_ptr() - self._memory.data_ptr()
            self._map.madvise(mmap.MADV_DONTNEED, first, pieces.nbytes)

    def finish(self) -> None:
        """All pieces are filled: from here on the file is whole, for later runs too."""
        if self.complete:
            return
        self._memory[:HEADER_BYTES] = torch.frombuffer(bytearray(self._header), dtype=torch.uint8)
        os.replace(self._part, self._path)
        self.complete = True
        self._lock.release()

    def __enter__(self) -> StackFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A file that was not finished goes."""
        if not self.complete:
            self._part.unlink(missing_ok=True)
        self._lock.release()

    @property
    def _part(self) -> Path:
        return self._path.with_suffix(".part")

    def _is_complete(self) -> bool:
        try:
            with open(os.open(self._path, os.O_RDONLY | _NO_LINKS), "rb") as file:
                return (
                    os.fstat(file.fileno()).st_size == self._size and file.read(HEADER_BYTES) == self._header
                )
        except OSError:
            return False

    def _create(self, require_room: Callable[[int], None]) -> Tensor:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ResourceError(
                f"{self._path} is being written by another process: wait until it has loaded its model"
            ) from None
        except OSError as error:
            raise ResourceError(
                f"{self._path} cannot be written here ({error.strerror}), and {self._holds} need it: raise the memory "
                "limit, or load the model once where it may write the model cache"
            ) from error
        try:
            self._path.unlink(missing_ok=True)  # of another key: it has no use, and takes room
            require_room(self._size)
            fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _NO_LINKS, 0o600)
            try:
                _reserve(fd, self._size, self._part, self._holds)
            except BaseException:
                os.close(fd)
                self._part.unlink(missing_ok=True)
                raise
            return self._mapped(fd, writable=True)
        except BaseException:
            self._lock.release()
            raise

    def _mapped(self, fd: int, *, writable: bool) -> Tensor:
        """The mapping keeps the file, whatever becomes of its name. Pages that nobody can write are the system's, and
        count against no limit of this process.
        """
        try:
            if writable:
                self._map = mmap.mmap(fd, self._size, flags=mmap.MAP_SHARED)
                return torch.frombuffer(self._map, dtype=torch.uint8)
            self._map = mmap.mmap(fd, self._size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            return torch.from_numpy(np.asarray(_Readable(self._map)))
        finally:
            os.close(fd)


class _Readable:
    """A mapping that cannot be written, as numpy takes memory: torch warns of arrays that say so."""

    def __init__(self, mapping: mmap.mmap) -> None:
        view = np.frombuffer(mapping, dtype=np.uint8)  # keeps the mapping
        self._view = view
        self.__array_interface__ = {**view.__array_interface__, "data": (view.ctypes.data, False)}


_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def stack_key(plan: WeightPlan, kinds: Mapping[str, tuple[str, ...]], source: Path) -> str:
    """What the file depends on: the checkpoint's files as they are now, what is stacked how, the kernels' layout."""
    digest = hashlib.sha256()
    files = [source] if source.is_file() else sorted(source.glob("*.safetensors"))
    for file in files:
        stat = file.stat()
        digest.update(f"{file.absolute()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    for name, kind in kinds.items():
        digest.update(f"{name} {plan.targets[name].shape} {kind}\n".encode())
    digest.update(native.library_digest())
    return f"inference-pio stacks {digest.hexdigest()}\n"


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _reserve(fd: int, nbytes: int, path: Path, holds: str) -> None:
    """Room on the disk now: a mapping has no way to say later that there is none."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, nbytes)
        else:
            os.ftruncate(fd, nbytes)
    except OSError as error:
        raise ResourceError(
            f"{path} cannot have the {nbytes / 1e9:.1f} GB that {holds} take: {error.strerror}; free some "
            f"room, or raise the memory limit"
        ) from error
