"""What a person types in a chat: lines, blocks of several lines, commands."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

BLOCK = '"""'


@dataclass(frozen=True)
class Entry:
    """One message, or one command."""

    text: str
    is_command: bool = False


class LineReader:
    """Reads entries from standard input; with line editing and a history where there is a terminal."""

    def __init__(self) -> None:
        self.interactive = sys.stdin is not None and sys.stdin.isatty()
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(
                errors="replace"
            )  # bytes that are no text cost one message a character, not the chat
        if self.interactive:
            try:
                import readline  # noqa: F401 - importing it gives `input` a history and line editing
            except ImportError:  # Windows has no readline; its console edits lines by itself
                return

    def read(self) -> Entry | None:
        """The next entry; None at the end of input, or after Ctrl-C twice in a row."""
        interrupted = False
        while True:
            try:
                return self._entry()
            except EOFError:
                if self.interactive:
                    print(file=sys.stderr)
                return None
            except KeyboardInterrupt:
                if not self.interactive:
                    raise
                print(file=sys.stderr)
                if interrupted:
                    return None
                interrupted = True
                print("(Ctrl-C again leaves)", file=sys.stderr)

    def _entry(self) -> Entry:
        line = self._line(">>> ")
        if line.lstrip().startswith(BLOCK):
            return Entry(self._block(line.lstrip().removeprefix(BLOCK)))
        if line.startswith("/"):
            return Entry(line.rstrip(), is_command=True)
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._line("... "))
        return Entry("\n".join(lines))

    def _block(self, line: str) -> str:
        """Lines up to the one that ends with three quotes."""
        lines = [line]
        while not lines[-1].rstrip().endswith(BLOCK):
            lines.append(self._line("... "))
        lines[-1] = lines[-1].rstrip().removesuffix(BLOCK)
        return "\n".join(lines).strip("\n")

    def _line(self, prompt: str) -> str:
        if sys.stdin is None:
            raise EOFError
        return input(prompt if self.interactive else "")
