"""A process locked in like a worker tries what a stranger's plugin might, each in turn; nothing comes of any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inference_pio.children.beginning import import_paths
from inference_pio.security import SecurityLevel, landlock
from inference_pio.security.confine import Confinement
from inference_pio.security.reach import Places, reach_of

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

_FILE = Path(__file__).with_name("hostile_actions.toml")
ACTIONS = {each["name"]: each for each in tomllib.loads(_FILE.read_text())["action"]}
_MOST = 400 << 20
_CHILD = """
import ctypes, errno, json, mmap, os, resource, socket, sys
from pathlib import Path
import msgspec
from inference_pio.security.confine import Confinement, confine
from inference_pio.security.syscalls import this_architecture
told = json.load(sys.stdin)
wanted = msgspec.convert(told["confinement"], Confinement)
parent, secret, outside, most = told["parent"], Path(told["secret"]), Path(told["outside"]), wanted.data_bytes
given = os.open(secret, os.O_RDONLY)
libc, numbers = ctypes.CDLL(None, use_errno=True), this_architecture().numbers
def call(name, *arguments):
    if libc.syscall(ctypes.c_long(numbers[name]), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), name)
confine(wanted, parent)
found = {}
for name, code in told["actions"].items():
    try:
        eval(code)
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
    except Exception as error:
        found[name] = type(error).__name__
    else:
        found[name] = "done"
os.write(1, json.dumps(found).encode())
"""


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each."""
    outside = tmp_path_factory.mktemp("outside")
    secret = outside / "secret"
    secret.write_text("the secret")
    reach = reach_of(SecurityLevel.LOW_TRUST, Places(import_paths(), [], outside / "cache"))
    confinement = Confinement(SecurityLevel.LOW_TRUST, data_bytes=_MOST, processors=(0,), reach=reach)
    told: dict[str, Any] = {
        "confinement": msgspec.to_builtins(confinement),
        "parent": os.getpid(),
        "secret": str(secret),
        "outside": str(outside),
        "actions": {name: action["code"] for name, action in ACTIONS.items()},
    }
    code = f"import sys; sys.path[:0] = {import_paths()!r}\n{_CHILD}"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert secret.read_text() == "the secret"
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def test_the_catalogue_is_long_enough() -> None:
    assert len(ACTIONS) >= 40


@pytest.mark.parametrize("name", ACTIONS)
def test_it_comes_to_nothing(met: dict[str, str], name: str) -> None:
    assert met[name] == ACTIONS[name]["error"]
