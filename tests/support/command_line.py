"""A command line in this process: its exit code and what it wrote."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from inference_pio.cli.app import execute
from inference_pio.cli.main import guarded


@dataclass(frozen=True)
class Result:
    """What one command line did."""

    code: int
    out: str
    err: str

    def complains(self, code: int, *fragments: str) -> None:
        """One line on stderr with all of `fragments`, this exit code, nothing on stdout."""
        assert self.code == code, self
        assert self.err.startswith("error: "), self
        assert self.err.count("\n") == 1, self
        assert self.err.endswith("\n"), self
        for fragment in fragments:
            assert fragment in self.err, self
        assert self.out == "", self


Cli = Callable[..., Result]


def run_here(
    arguments: tuple[object, ...],
    stdin: bytes | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Result:
    """Errors are treated as `main` treats them; `stdin` None is a closed one."""
    stream = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stream)
    capsys.readouterr()
    code = guarded(lambda: execute([str(argument) for argument in arguments]))
    return Result(code, *capsys.readouterr())
