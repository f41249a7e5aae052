"""The command line in this process and in processes of its own, and a tiny random llama to run with it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inference_pio.cli.app import execute
from inference_pio.cli.main import guarded
from support.tiny_llama import write_model


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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model cache, and no way to a network."""
    folder = tmp_path / "home"
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:  # noqa: ARG001
    """Run a command line in this process, errors treated as `main` treats them."""

    def call(*arguments: object, stdin: bytes | None = b"") -> Result:
        stream = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", stream)
        capsys.readouterr()
        code = guarded(lambda: execute([str(argument) for argument in arguments]))
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:  # noqa: ARG001
    """Start a command line as a process; killed at the end if it is still there."""
    running = []

    def begin(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from inference_pio.cli.main import main; main()"]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        running.append(subprocess.Popen([*command, *map(str, arguments)], text=True, **pipes))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that `run` and `chat` accept; its answers are noise, the same noise each time."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """A directory like `tiny` for a test that breaks something in it; keywords go into config.json."""
    return lambda **changes: write_model(tmp_path / "model", **changes)
