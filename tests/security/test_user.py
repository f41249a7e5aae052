"""Who a locked process is where its parent is root, and who it is never."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.children.beginning import import_paths
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UsageError
from inference_pio.security import landlock
from inference_pio.security.confine import Confinement
from inference_pio.security.landlock import Reach
from inference_pio.security.user import USER_VARIABLE, reads_all, user_and_reading, worker_user
from inference_pio.worker.runtime import WorkerRuntime

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user can only be become by root")
needs_landlock = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
SOMEBODY = (12345, 12346)


@as_root
def test_the_operator_says_who_and_it_is_never_root() -> None:
    assert worker_user({USER_VARIABLE: "12345:12346"}) == SOMEBODY
    assert worker_user({USER_VARIABLE: "77"}) == (77, 77)
    nobody = worker_user({})
    assert nobody is not None
    assert 0 not in nobody
    assert worker_user({USER_VARIABLE: "nobody"}) == nobody
    for wrong in ("root", "0", "0:5", "5:0", "-1", "no such user", "1:x", "", str(2**40)):
        with pytest.raises(UsageError, match=USER_VARIABLE):
            worker_user({USER_VARIABLE: wrong})


def test_one_who_may_not_change_stays_who_it_is(tmp_path: Path) -> None:
    """Root of a namespace with nobody else in it."""
    code = (
        f"import sys; sys.path[:0] = {import_paths()!r}\n"
        "from inference_pio.security.user import worker_user\nprint(worker_user({}))\n"
        f"try: worker_user({{{USER_VARIABLE!r}: '5'}})\nexcept Exception as error: print(error)"
    )
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not here")
    if ran.returncode and "unshare" in ran.stderr:
        pytest.skip(f"no namespace of a user: {ran.stderr.strip()}")
    assert ran.stdout.splitlines() == [
        "None",
        f"{USER_VARIABLE}=5: this process may not become that user",
    ], ran.stderr


def test_what_a_user_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / "file"
    file.touch()
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o001)  # pytest's own are for its user alone
    open_to = {0o755: (0o644, 0o664), 0o711: (0o644,)}
    for rights, of_file in ((rights, each) for rights, many in open_to.items() for each in many):
        folder.chmod(rights)
        file.chmod(of_file)
        assert reads_all(SOMEBODY, [file])
    assert not reads_all(SOMEBODY, [folder])  # 0711
    for rights, of_file in ((0o755, 0o640), (0o750, 0o644)):
        folder.chmod(rights)
        file.chmod(of_file)
        assert not reads_all(SOMEBODY, [file])
        assert not reads_all(SOMEBODY, [tmp_path / "not there", file])
    owner = os.stat(file).st_uid, os.stat(file).st_gid
    assert reads_all(owner, [folder])
    assert user_and_reading(None, [file]) == (None, False)
    assert user_and_reading(SOMEBODY, [file]) == ((SOMEBODY, True) if landlock.version() else (None, False))


_CHILD = """
import json, os, sys
import msgspec
from inference_pio.security.confine import Confinement, confine
from inference_pio.security.identity import has_capabilities
told = json.load(sys.stdin)
locks = confine(msgspec.convert(told["confinement"], Confinement), os.getppid())
def tried(action):
    try:
        return repr(action())
    except OSError as error:
        return type(error).__name__
os.write(1, json.dumps({
    "locks": {each.name: [each.state, *each.gaps] for each in locks},
    "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
    "capabilities": has_capabilities(),
    "back": [tried(lambda: os.setuid(0)), tried(lambda: os.setresgid(0, 0, 0)), tried(lambda: os.setgroups([0]))],
    "granted": tried(lambda: open(told["granted"]).read()),
    "elsewhere": tried(lambda: open(told["elsewhere"]).read()),
    "written": tried(lambda: open(told["granted"], "a")),
}).encode())
"""


def locked(tmp_path: Path, *, reading: bool) -> dict[str, Any]:
    """A process that became somebody, with one secret file of root's in its reach."""
    for name in ("granted", "elsewhere"):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "secret"
        file.write_text("x")
        file.chmod(0o600)
    reach = Reach(read=(str(tmp_path / "granted"),), write=(str(tmp_path / "granted"),))
    wanted = Confinement(SecurityLevel.MEDIUM_TRUST, user=SOMEBODY, reading=reading, reach=reach)
    told = {
        "confinement": msgspec.to_builtins(wanted),
        **{name: str(tmp_path / name / "secret") for name in ("granted", "elsewhere")},
    }
    code = f"import sys; sys.path[:0] = {import_paths()!r}\n{_CHILD}"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        input=json.dumps(told), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


@as_root
@needs_landlock
@pytest.mark.parametrize("reading", [False, True])
def test_it_is_somebody_else_for_good(tmp_path: Path, reading: bool) -> None:
    found = locked(tmp_path, reading=reading)
    assert found["ids"] == [12345] * 3 + [12346] * 3
    assert found["back"] == ["PermissionError"] * 3
    assert found["capabilities"] is reading
    assert found["granted"] == ("'x'" if reading else "PermissionError")
    assert found["elsewhere"] == found["written"] == "PermissionError"
    state = found["locks"]["privileges"][0]
    assert state == ("partly set" if reading else "set")


@as_root
@needs_landlock
@pytest.mark.parametrize("level", ["LOW_TRUST", "MEDIUM_TRUST", "HIGH_TRUST"])
def test_a_model_runs_as_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """Though its files are root's alone; its limits hold as they do otherwise."""
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(USER_VARIABLE, "12345:12346")
    path = Subject.of("llama", tmp_path, collected={}).checkpoint("grouped")
    for file in path.iterdir():
        file.chmod(0o600)
    path.chmod(0o700)
    limits = ResourceLimits(memory_gb=2, cpu_percent=100, gpu_memory_gb=0)
    options: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_gb": 0.001, "max_model_len": 256}
    options |= {"prefix_cache_disk_gb": 0.01, "security_level": SecurityLevel[level]}
    with LLM(str(path), resource_limits=limits, **options) as llm:
        runtime = llm._runtime
        assert isinstance(runtime, WorkerRuntime)
        status = Path(f"/proc/{runtime.model.pid}/status").read_text().splitlines()
        lines = dict(line.split(":", 1) for line in status)
        assert lines["Uid"].split() == ["12345"] * 4
        assert lines["Gid"].split() == ["12346"] * 4
        for start in range(5, 30):
            llm.generate(
                {"prompt_token_ids": [start + i % 60 for i in range(100)]}, SamplingParams(max_tokens=2)
            )
        assert runtime.disk_stats()["prefix_blocks_stored"] > 0
        states = {
            each.limit: each.state for each in runtime.security_report(SecurityLevel[level], limits).entries
        }
        assert "NOT ENFORCED" not in states.values()
