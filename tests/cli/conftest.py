"""The command line in this process and in processes of its own, and a tiny random llama to run with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command_line import Cli, Result, run_here
from support.tiny_llama import write_model


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
        return run_here(arguments, stdin, capsys, monkeypatch)

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
