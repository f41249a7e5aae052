"""Where root runs the suite, what holds of sandboxes and limits is tried a second time by a user without privileges."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AGAIN = ("tests/security", "tests/promises/test_limits.py", "tests/promises/test_orphans.py")
NOBODY = 65534
# In a view of the file system of its own, where the interpreter does not lie in a folder that is closed to others.
_AS_NOBODY = """
set -e
if [ -n "$CLOSED" ]; then
  mount --bind "$INTERPRETER" "$HOLD"
  mount -t tmpfs -o mode=755 none "$CLOSED"
  mkdir -p "$INTERPRETER"
  mount --bind "$HOLD" "$INTERPRETER"
fi
exec setpriv --reuid={nobody} --regid={nobody} --clear-groups --bounding-set=-all --inh-caps=-all "$@"
"""


def closed_folder() -> str:
    """The topmost folder on the way to the interpreter that others may not enter; empty: none."""
    prefix = Path(sys.base_prefix).resolve()
    for folder in [*reversed(prefix.parents), prefix]:
        if not folder.stat().st_mode & 0o001:
            return str(folder)
    return ""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="this is a user without privileges already")
@pytest.mark.skipif(not (shutil.which("unshare") and shutil.which("setpriv")), reason="no util-linux here")
def test_the_same_holds_for_a_user_without_privileges() -> None:
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o777)
        (Path(home) / "hold").mkdir()
        shown = {
            "HOME": home,
            "TMPDIR": home,
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CLOSED": closed_folder(),
            "INTERPRETER": sys.base_prefix,
            "HOLD": f"{home}/hold",
        }

        def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [
                    *("unshare", "-m", "sh", "-c", _AS_NOBODY.format(nobody=NOBODY), "sh"),
                    *(sys.executable, *arguments),
                ],
                cwd=home,
                env={**os.environ, **shown},
                capture_output=True,
                text=True,
                timeout=240,
            )

        told = as_nobody("-c", "import os, inference_pio; print(os.getresuid(), os.getgroups())")
        if told.returncode:
            pytest.skip(f"nobody may not run this here: {told.stderr.strip()[-200:]}")
        assert told.stdout == f"{(NOBODY,) * 3} []\n"
        ran = as_nobody(
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "-rs", "-m", "not slow"),
            *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "--basetemp", f"{home}/tests"),
            *(str(ROOT / each) for each in AGAIN),
        )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) > 120
