"""Landlock: what a process reaches once it has entered its domain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inference_pio.security import landlock

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

_INSIDE = """
import encodings.idna  # which the first name of a host needs, and could not be read behind the walls
import errno, os, socket, sys, threading
from pathlib import Path
from inference_pio.security.landlock import Reach, enter
read, write, outside = map(Path, sys.argv[1:])
opened = os.open(outside / "file", os.O_RDONLY)
domain = enter(Reach(read=(read, Path("/does/not/exist")), write=(write,)))
def tried(name, action):
    try:
        action()
    except OSError as error:
        print(f"{name}: {errno.errorcode[error.errno]}", flush=True)
    else:
        print(f"{name}: done", flush=True)
tried("read inside", lambda: (read / "file").read_text())
tried("list inside", lambda: os.listdir(read))
tried("write where reading is allowed", lambda: (read / "file").write_text("x"))
tried("truncate where reading is allowed", lambda: os.truncate(read / "file", 0))
tried("write inside", lambda: (write / "new").write_text("x"))
tried("make a folder inside", lambda: (write / "folder").mkdir())
tried("remove inside", lambda: (write / "new").unlink())
tried("run inside", lambda: os.execv(write / "program", ["program"]))
tried("read outside", lambda: (outside / "file").read_text())
tried("by a link", lambda: (write / "link").read_text())
tried("what was open", lambda: os.pread(opened, 1, 0))
tried("what was open, by its number", lambda: open(f"/proc/self/fd/{opened}").close())
tried("write outside", lambda: (outside / "new").write_text("x"))
tried("out of it by a rename", lambda: os.rename(write / "folder", outside / "folder"))
tried("accounts", lambda: open("/etc/passwd").close())
tried("tcp", lambda: socket.create_connection(("127.0.0.1", 9), 1))
tried("signal", lambda: os.kill(os.getppid(), 0))
later = threading.Thread(target=tried, args=("a later thread", lambda: (outside / "file").read_text()))
later.start(); later.join()
"""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("read", "write", "outside")]
    for folder in made:
        folder.mkdir()
        (folder / "file").write_text("text")
    (made[1] / "link").symlink_to(made[2] / "file")
    (made[1] / "program").write_bytes(b"no program")  # which the kernel would say where it may look
    (made[1] / "program").chmod(0o755)
    return made


def test_only_what_is_named_is_reached(folders: list[Path]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _INSIDE, *map(str, folders)], capture_output=True, text=True, timeout=60
    )
    assert ran.stderr == ""
    met = dict(line.split(": ") for line in ran.stdout.splitlines())
    done = {
        "read inside",
        "list inside",
        "write inside",
        "make a folder inside",
        "remove inside",
        "what was open",
    }
    refused = {"out of it by a rename": "EXDEV"} if met["out of it by a rename"] == "EXDEV" else {}
    expected = {name: "done" if name in done else "EACCES" for name in met} | refused
    found = landlock.version()
    expected |= {"signal": "EPERM" if found >= 6 else "done"}
    expected |= {} if found >= 4 else {"tcp": "ECONNREFUSED"}
    expected |= {} if found >= 3 else {"truncate where reading is allowed": "done"}
    assert met == expected


def test_gaps_are_told_by_version() -> None:
    assert landlock.gaps(7) == ("stat and chdir see any path",)
    assert "TCP is open" in landlock.gaps(3)
    assert "TCP is open" not in landlock.gaps(4)
    assert "files may be truncated" in landlock.gaps(2)


@pytest.mark.parametrize(("found", "rights"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (7, 16)])
def test_older_kernels_are_asked_for_the_rights_they_know(found: int, rights: int) -> None:
    assert landlock._file_rights(found) == (1 << rights) - 1
