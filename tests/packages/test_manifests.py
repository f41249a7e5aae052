"""A plugin's word about itself is asked for in a locked child."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference_pio.errors import PluginError
from inference_pio.packages import manifests
from inference_pio.packages.manifests import manifest_of
from inference_pio.security import landlock

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

_TOLD = """
import errno, os, socket
from pathlib import Path
from inference_pio.plugin.manifest import Manifest

def tried(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

print("noise in front of the answer")
met = [tried(action) for action in (
    lambda: Path("/etc/passwd").read_bytes(), lambda: Path(__file__).with_name("x").write_bytes(b""),
    lambda: socket.socket(), os.fork,
)] + [str("API_KEY" in os.environ)]
MANIFEST = Manifest("told", 1, (), "a.b:C", " ".join(met))
"""


def package(folder: Path, name: str, source: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source)
    return folder


def test_what_it_does_then_comes_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    folder = package(tmp_path, "told_once", _TOLD)
    found = manifest_of("told_once:MANIFEST", "told", (str(folder),))
    assert found.description == "EACCES EACCES EACCES EPERM False"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise SystemExit(0)", "it exited with 0"),
        ("import os; os.abort()", "it ended by SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "it ended by SIGSEGV"),
        ("raise ValueError('no\\x1b[31m')", "ValueError: no"),
        ("MANIFEST = 1", "is not a Manifest but int"),
        ("import os; os.write(1, b'{\"manifest\": {}}'); os._exit(0)", "does not load"),
    ],
)
def test_one_that_does_not_load_is_one_line(tmp_path: Path, source: str, words: str) -> None:
    name = f"broken_{abs(hash(source))}_{os.getpid()}"
    with pytest.raises(PluginError, match=words) as caught:
        manifest_of(f"{name}:MANIFEST", "broken", (str(package(tmp_path, name, source)),))
    assert f"{name}:MANIFEST of broken" in str(caught.value)
    assert str(caught.value).isprintable()


def test_one_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_PATIENCE", 1.0)
    with pytest.raises(PluginError, match="no word in 1 s"):
        manifest_of(
            "hanging:MANIFEST", "h", (str(package(tmp_path, "hanging", "import time; time.sleep(20)")),)
        )
