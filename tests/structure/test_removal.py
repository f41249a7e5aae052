"""Taking built-in plugins' directories away leaves every other test importable, and what looks at all plugins green.

All but one go at once: a test that needs any of them is found. That plugins need no other is a rule of imports.
`tests/support/without_plugin.py` runs the whole suite that way, without one plugin or several.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inference_pio.plugin.registry import BUILT_IN
from support.without_plugin import copy_without, run_pytest

# Tests outside the plugins that look at whatever plugins there are.
COUNTING = (
    "tests/plugin",
    "tests/structure/test_code.py",
    "tests/structure/test_copies.py",
    "tests/structure/test_modules.py",
    "tests/loader/test_catalogue.py",
    "tests/contract/test_near_misses.py",
)


@pytest.mark.slow
def test_the_rest_stays_green(tmp_path: Path) -> None:
    """llama excepted: it is the plugin that the engine's own tests run on."""
    gone = [name for name in BUILT_IN if name != "llama"]
    checkout = copy_without(gone, tmp_path / "checkout")
    collected = run_pytest(checkout, ["--collect-only", "-q"], timeout=300)
    assert collected.returncode == 0, collected.stdout[-4000:] + collected.stderr[-1000:]
    assert not any(f"models/{plugin}/" in collected.stdout for plugin in gone)
    assert re.search(r"\d{3,} tests collected", collected.stdout)
    done = run_pytest(checkout, ["-q", *COUNTING], timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
