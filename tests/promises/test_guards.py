"""Every guard that is listed is there, and where it is taken out a test fails."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import inference_pio
from support.mutation import copied, guards, survives

ROOT = Path(inference_pio.__file__).parent
TESTS = Path(__file__).parents[2]
GUARDED = ("security/", "children/", "worker/", "helper/", "packages/", "given.py")
# As many as run in a minute; `python tests/support/mutation.py` takes all of them.
EVERY = 16


def test_guards_are_where_the_list_says() -> None:
    listed = guards()
    assert len({(guard.file, guard.name) for guard in listed}) == len(listed)
    assert {prefix for prefix in GUARDED for guard in listed if guard.file.startswith(prefix)} == set(GUARDED)
    for guard in listed:
        source = (ROOT / guard.file).read_text()
        assert source.count(guard.text) == 1, f"{guard.file}: {guard.name}"
        ast.parse(source.replace(guard.text, guard.then))
        file, _, test = guard.test.partition("::")
        assert f"def {test.partition('[')[0]}" in (TESTS / file).read_text(), guard.test


@pytest.mark.slow
def test_a_guard_that_is_taken_out_is_missed() -> None:
    """Of every sixteenth."""
    with copied() as checkout:
        found = {guard.name: survives(guard, checkout) for guard in guards()[::EVERY]}
    assert {name: why for name, why in found.items() if why} == {}
