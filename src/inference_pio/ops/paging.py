"""Weights that lie on the disk and are in memory only while they are used (csrc/pager.cpp)."""

from __future__ import annotations

import os
import sys
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from inference_pio.ops import native
from inference_pio.ops.linear import PackedWeight
from inference_pio.ops.quantized import QuantizedWeight
from inference_pio.ops.slab import whole_pages

PAGE = 4096
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


class PageUnit(NamedTuple):
    """What is read at once: a layer. All numbers are whole pages.

    offset  in the file, and `nbytes` there
    place   in memory
    slot    units of one slot have one place, and take turns
    """

    offset: int
    nbytes: int
    place: int
    slot: int


class PagerCounts(NamedTuple):
    """read_bytes      that came from the disk since the pager was opened
    waited_seconds  that computations stood still for them
    """

    read_bytes: int
    waited_seconds: float


class Pager:
    """Keeps a window of a file's units in memory, and reads ahead.

    memory          uint8, all places; where nothing was read yet it takes none
    streamed_bytes  of units that share their place with others: what is read over and over
    """

    def __init__(self, path: Path, units: Sequence[PageUnit], sums: Tensor) -> None:
        """Open the file; the system's cache is passed by where it can be, so that it holds nothing a second time.

        Args:
            sums: int64, what `unit_sums` gave for each unit, one behind the other.

        Raises:
            OSError: it cannot be opened.
        """
        self.memory = whole_pages(max(unit.place + unit.nbytes for unit in units))
        slots = Counter(unit.slot for unit in units)
        self.streamed_bytes = sum(unit.nbytes for unit in units if slots[unit.slot] > 1)
        table = torch.tensor(units, dtype=torch.int64)
        self._number = int(
            native.call("pager_open", self.memory, table, sums.contiguous(), _opened(path), str(path))
        )
        weakref.finalize(self, native.call, "pager_close", self._number)

    def enter(self, unit: int) -> None:
        """Return when the unit is in its place; those that were entered before may go. A recorded step does it again.

        Raises:
            RuntimeError: it cannot be read, or is not what was written.
        """
        native.call("pager_enter", self._number, unit)

    def leave(self, unit: int) -> None:
        """The unit's place may be taken. Recorded as well."""
        native.call("pager_leave", self._number, unit)

    def counts(self) -> PagerCounts:
        read_bytes, nanoseconds = str(native.call("pager_counts", self._number)).split()
        return PagerCounts(int(read_bytes), int(nanoseconds) / 1e9)


def unit_sums(data: Tensor) -> Tensor:
    """The checksums of one unit, uint8 [whole pages]: int64, one for each chunk that is read at once."""
    sums = torch.empty(num_sums(len(data)), dtype=torch.int64)
    native.call("pager_sums", data, sums)
    return sums


def num_sums(nbytes: int) -> int:
    """How many checksums a unit of so many bytes has."""
    return -(-nbytes // int(native.call("pager_chunk")))


@dataclass(frozen=True)
class Page:
    """Where a weight lies: `place` in the pager's memory holds it once `unit` was entered."""

    pager: Pager
    unit: int
    place: Tensor

    def present(self) -> Tensor:
        self.pager.enter(self.unit)
        return self.place


class OnPage:
    """Where a weight that may be on the disk lies, known without reading it."""

    page: Page

    @property
    def nbytes(self) -> int:
        return self.page.place.nbytes

    @property
    def address(self) -> int:
        return self.page.place.data_ptr()


class PagedQuantizedWeight(OnPage, QuantizedWeight):
    """A weight in blocks that is fetched whenever its bytes are asked for; what was asked for before may be gone."""

    def __init__(self, page: Page, parts: Tensor, in_features: int) -> None:
        self.__dict__.update(vars(QuantizedWeight.of(page.place, parts, in_features)) | {"page": page})

    def pieces(self) -> list[QuantizedWeight]:
        wholes, first = QuantizedWeight.of(self.page.place, self.parts, self.in_features).pieces(), 0
        found: list[QuantizedWeight] = []
        for whole in wholes:
            place = self.page.place.narrow(0, first, whole.nbytes)
            page = Page(self.page.pager, self.page.unit, place)
            found.append(PagedQuantizedWeight(page, whole.parts, self.in_features))
            first += whole.nbytes
        return found

    @property
    def data(self) -> Tensor:
        return self.page.present()


class PagedWeight(OnPage, PackedWeight):
    """The same for a plain weight."""

    def __init__(self, page: Page, out_features: int, in_features: int) -> None:
        self.__dict__.update(page=page, out_features=out_features, in_features=in_features, blocked=False)

    @property
    def tensor(self) -> Tensor:
        return self.page.present()


def _opened(path: Path) -> int:
    if hasattr(os, "O_DIRECT"):
        with suppress(OSError):  # a file system without it, in memory for one
            return os.open(path, os.O_RDONLY | _NO_LINKS | os.O_DIRECT)
    fd = os.open(path, os.O_RDONLY | _NO_LINKS)
    if sys.platform == "darwin":
        import fcntl  # not on Windows

        fcntl.fcntl(fd, fcntl.F_NOCACHE, 1)
    return fd
