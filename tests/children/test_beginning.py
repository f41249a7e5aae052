"""Where a child imports from: not from wherever its parent happened to be started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import inference_pio

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
