"""The command line as a process: signals and streams that are not there."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="looks into /proc to know when to interrupt"
    ),
    pytest.mark.slow,
]
LONG = ("--min-tokens", 90_000, "--max-tokens", 90_000, "--temperature", 0, "--repetition-penalty", 1)


@pytest.fixture
def patient(make_model: Callable[..., Path]) -> Path:
    """A model that can be asked to go on for minutes."""
    return make_model(max_position_embeddings=100_000)


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def interrupted(process: subprocess.Popen[str]) -> None:
    """Send Ctrl-C: exit code 130 soon, and no word about it."""
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert err == ""


def maps(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/maps").read_text()


def sleeps(process: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_ctrl_c_while_importing(start: Any, patient: Path) -> None:
    process = start("run", patient, "hello", *LONG)
    wait_for(process, lambda: "libtorch" in maps(process))
    interrupted(process)


@pytest.mark.parametrize("milliseconds", [0, 3, 10, 40])
def test_ctrl_c_while_loading(start: Any, patient: Path, milliseconds: int) -> None:
    """The weights are open: from here on a load, then the first steps, are interrupted at several moments."""
    process = start("run", patient, "hello", *LONG)

    def is_open() -> bool:
        opened = Path(f"/proc/{process.pid}/fd")
        return "model.safetensors" in maps(process) or any(
            os.readlink(link).endswith("model.safetensors") for link in opened.iterdir() if link.is_symlink()
        )

    def is_open_or_changing() -> bool:
        try:
            return is_open()
        except FileNotFoundError:  # a descriptor was closed while we looked
            return False

    wait_for(process, is_open_or_changing)
    time.sleep(milliseconds / 1000)
    interrupted(process)


def test_ctrl_c_while_generating(start: Any, patient: Path) -> None:
    process = start("run", patient, "hello", *LONG)
    assert process.stdout is not None
    assert process.stdout.read(1)
    interrupted(process)


def test_ctrl_c_in_a_chat_over_a_pipe(start: Any, patient: Path) -> None:
    """Nobody is there to go on with the conversation: this one leaves."""
    process = start("chat", patient, *LONG, stdin=subprocess.PIPE)
    process.stdin.write("hello\n")
    process.stdin.flush()
    assert process.stdout.read(1)
    interrupted(process)


def test_ctrl_c_while_pulling(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        process = start("models", "pull", "org/model")
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            interrupted(process)


def test_ctrl_c_while_waiting_for_the_prompt(start: Any, patient: Path) -> None:
    process = start("run", patient, stdin=subprocess.PIPE)
    looked = [False]  # it sleeps whenever it is looked at, for a third of a second

    def waits() -> bool:
        looked.append(sleeps(process))
        return all(looked[-60:])

    wait_for(process, waits)
    interrupted(process)


def test_reader_that_leaves_is_no_error(start: Any, patient: Path) -> None:
    process = start("run", patient, "hello", *LONG)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.stdout.close()
    process.wait(20)
    assert process.stderr is not None
    assert (process.returncode, process.stderr.read()) == (141, "")


def test_closed_streams(start: Any, tiny: Path) -> None:
    def close(*descriptors: int) -> Callable[[], None]:
        return lambda: [os.close(descriptor) for descriptor in descriptors] and None  # type: ignore[func-returns-value]

    process = start("run", tiny, stdin=None, preexec_fn=close(0))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(r"error: no prompt: .*standard input is closed\n", err)
    process = start("models", "list", stdout=None, preexec_fn=close(1))
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    process = start("models", "info", "nonsense", stdout=None, stderr=None, preexec_fn=close(1, 2))
    assert process.wait(60) == 4


def test_full_disk_behind_stdout(start: Any) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = start("models", "list", stdout=full)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "error: No space left on device\n")


def test_terminal_that_knows_only_ascii(start: Any) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = start("models", "list", env=environment)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "gemma-3-270m                 ?  " in out
