"""A checkpoint that is being written: all of it gets its name at the end, or nothing of it is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from inference_pio.errors import UnavailableError, UsageError
from inference_pio.loader.store import free_bytes


@dataclass(frozen=True)
class Layout:
    """head     the file's first bytes
    offsets  where in the file each tensor begins
    size     of the file
    """

    head: bytes
    offsets: Mapping[str, int]
    size: int


class TensorsOut:
    """A file whose tensors are written in any order, whole or row by row."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._layout = layout
        self._file = path.open("wb")
        self._file.write(layout.head)
        self._file.truncate(layout.size)

    def write(self, name: str, data: Tensor, skipped: int = 0) -> None:
        """`data` as it lies in memory, `skipped` bytes behind the tensor's beginning."""
        self._file.seek(self._layout.offsets[name] + skipped)
        self._file.write(data.contiguous().view(-1).view(torch.uint8).numpy().data)

    def __enter__(self) -> TensorsOut:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was written without an error is on the disk from here on."""
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())


def require_target(out: Path) -> None:
    """Refuse, before anything is computed, to write where something is or nothing can be.

    Raises:
        UsageError: `out` is there already, or the folder it would lie in is not.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} is there already: remove it, or give another name")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out} cannot be written: there is no folder {out.absolute().parent}")


@contextmanager
def drafted(out: Path, nbytes: int) -> Iterator[Path]:
    """A path beside `out` for a file or folder of about `nbytes`. What lies there when the block is left becomes `out`;
    where it is left by an error or Ctrl-C, it is removed.

    Raises:
        UnavailableError: the disk has no room for it, or cannot be written.
    """
    free = free_bytes(out.absolute().parent)
    if nbytes > free:
        raise UnavailableError(
            f"{out} does not fit the disk: {nbytes / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free; free some, or name "
            "a place on another disk"
        )
    draft = out.with_name(f"{out.name}.part")
    try:
        _remove(draft)
        yield draft
        draft.rename(out)
    except OSError as error:
        raise UnavailableError(
            f"{out} cannot be written: {error.strerror or error}; nothing of it is left"
        ) from error
    finally:
        _remove(draft)


def _remove(draft: Path) -> None:
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft)
    else:
        draft.unlink(missing_ok=True)
