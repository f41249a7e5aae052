"""What a child sees of where it comes from: nothing that would run, and no secret."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import inference_pio
from inference_pio.children.beginning import command, environment, import_paths

_TOLD = """
import json, os, socket, sys
def tell(descriptor):
    said = [dict(os.environ), sys.path, "sitecustomize" in sys.modules, "site" in sys.modules]
    socket.socket(fileno=descriptor).sendall(json.dumps(said).encode())
"""


def test_nothing_of_the_environment_runs_or_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "telling.py").write_text(_TOLD)
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "hostile.pth").write_text("import os; os._exit(3)")
    (tmp_path / "startup.py").write_text("import os; os._exit(4)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    monkeypatch.setenv("API_KEY", "secret")
    shown = {"TZ": "UTC", "INFERENCE_PIO_OPS": "reference", "INFERENCE_PIO_ISA": "portable"}
    for name, value in shown.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INFERENCE_PIO_DEBUG", "1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        more = {"SHOWN": "x", "PYTHONSTARTUP": str(tmp_path / "startup.py"), "PYTHONPATH": str(tmp_path)}
        ran = subprocess.run(
            command("telling:tell", theirs.fileno()),
            env=environment(more),
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
        )
        theirs.close()
        assert ran.returncode == 0, ran.stderr
        variables, paths, customised, site = json.loads(b"".join(iter(lambda: ours.recv(1 << 16), b"")))
    assert variables["SHOWN"] == "x"
    assert {name: variables[name] for name in shown} == shown
    assert set(variables) <= {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "OMP_NUM_THREADS", *shown, *more}
    assert all(map(os.path.isabs, paths))
    assert (customised, site) == (False, False)


@pytest.mark.parametrize("how", ["a module", "a script", "a link to a script"])
def test_what_lies_beside_a_program_is_out_of_reach(tmp_path: Path, how: str) -> None:
    """Somebody's home, say: children may read below the folders that they import from."""
    program = tmp_path / "program.py"
    program.write_text("from inference_pio.children.beginning import import_paths; print(import_paths())")
    (tmp_path / "link.py").symlink_to(program)
    arguments = {"a module": ["-m", "program"], "a script": [str(program)], "a link to a script": ["link.py"]}
    own = import_paths()[0]
    ran = subprocess.run(
        [sys.executable, *arguments[how]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": own},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    paths = ast.literal_eval(ran.stdout)
    assert paths[0] == own
    assert len(paths) > 2
    assert str(tmp_path) not in paths


def test_it_imports_this_project_first_and_nothing_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["", "relative", "/absolute"])
    own, *others = import_paths()
    assert (Path(own) / "inference_pio" / "children").is_dir()
    assert others == ["/absolute"]


_OWN = str(Path(inference_pio.__file__).parent.parent)
_CODE = f"""
import sys
sys.path.insert(1, {_OWN!r})
import json
from inference_pio.children.beginning import import_paths
print(json.dumps(import_paths()))
"""


@pytest.mark.parametrize("as_module", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_the_folder_of_a_script_is_no_place_of_modules(as_module: bool, named: bool, tmp_path: Path) -> None:
    """Unless the one who started it says so."""
    (tmp_path / "script.py").write_text(_CODE)
    begun = ["-m", "script"] if as_module else [str(tmp_path / "script.py")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(tmp_path)} if named else {}
    said = subprocess.run(
        [sys.executable, *begun], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    paths = json.loads(said.stdout)
    assert (str(tmp_path) in paths) == named
    assert paths[0] == _OWN
    assert {path for path in sys.path if path.endswith("site-packages")} <= set(paths)
