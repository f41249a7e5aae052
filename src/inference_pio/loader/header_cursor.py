"""Reading little-endian values one after another from the beginning of a file, never past what the file holds."""

from __future__ import annotations

import struct
from typing import Any

from inference_pio.errors import ModelFileError
from inference_pio.loader.regular_file import RegularFile

# Vocabularies of 300,000 tokens with their merges take about 20 MB.
MAX_HEADER_BYTES = 128 * 2**20
# A value is an object of Python's, many times what it is in the file; such a vocabulary has 1.5 million.
MAX_VALUES = 2**22
_FIRST_READ = 64 * 2**10
_LENGTH = struct.Struct("<Q")


class HeaderCursor:
    """Holds what was read so far, twice as much with every refill; what a value claims is checked before it is read."""

    def __init__(self, file: RegularFile) -> None:
        self._file = file
        self._limit = min(file.size, MAX_HEADER_BYTES)
        self._data = b""
        self._values = 0
        self.position = 0

    def error(self, what: str, where: str = "", *, hint: str = "") -> ModelFileError:
        return ModelFileError(self._file.path, what, where=where, byte=self.position, hint=hint)

    def require_room(self, count: int, smallest: int, what: str) -> None:
        """Refuse `count` entries of at least `smallest` bytes where they cannot all be there."""
        left = self._limit - self.position
        if count * smallest > left:
            raise self.error(f"claims {count} {what}, which {left} bytes cannot hold", hint=self._cut_hint())

    def count_values(self, count: int, where: str) -> None:
        """Refuse arrays that have, all of them together, more values than memory should be given for."""
        self._values += count
        if self._values > MAX_VALUES:
            raise self.error(f"has {count} values, more than the {MAX_VALUES} of a header", where)

    def take(self, count: int, where: str) -> bytes:
        end = self._reach(count, where)
        value = self._data[self.position : end]
        self.position = end
        return value

    def scalar(self, code: str, where: str) -> Any:
        return self.scalars(code, 1, where)[0]

    def scalars(self, code: str, count: int, where: str) -> list[Any]:
        """`count` numbers of one struct format character."""
        end = self._reach(count * struct.calcsize(f"<{code}"), where)
        values = struct.unpack_from(f"<{count}{code}", self._data, self.position)
        self.position = end
        return list(values)

    def string(self, where: str, most: int = MAX_HEADER_BYTES) -> str:
        length = self.scalar("Q", where)
        if length > most:
            raise self.error(f"has a text of {length} bytes, more than {most}", where)
        raw = self.take(length, where)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.error(f"is not UTF-8: {raw[:40]!r}", where) from error

    def strings(self, count: int, where: str) -> list[str]:
        """Many strings; written out, because a vocabulary has some 300,000 of them."""
        self.require_room(count, _LENGTH.size, "strings")
        values: list[str] = []
        data, position, available = self._data, self.position, len(self._data)
        unpack, append = _LENGTH.unpack_from, values.append
        try:
            for _ in range(count):
                start = position + 8
                if start > available:
                    data, available = self._refill(position, start, where)
                end = start + unpack(data, position)[0]
                if end > available:
                    data, available = self._refill(position, end, where)
                append(data[start:end].decode())
                position = end
        except UnicodeDecodeError as error:
            self.position = position
            raise self.error("has a string that is not UTF-8", where) from error
        self.position = position
        return values

    def _refill(self, position: int, end: int, where: str) -> tuple[bytes, int]:
        self.position = position
        self._reach(end - position, where)
        return self._data, len(self._data)

    def _reach(self, count: int, where: str) -> int:
        """The end of the next `count` bytes, which are in `_data` afterwards."""
        end = self.position + count
        if end > self._limit:
            left = self._limit - self.position
            raise self.error(f"needs {count} bytes, {left} are left", where, hint=self._cut_hint())
        if end > len(self._data):
            size = min(self._limit, max(end, 2 * len(self._data), _FIRST_READ))
            self._data += self._file.read(len(self._data), size - len(self._data))
        return end

    def _cut_hint(self) -> str:
        if self._limit < self._file.size:
            return f"a header may have {MAX_HEADER_BYTES} bytes"
        return "the file is damaged or its download incomplete"
