"""Layers on the disk, asked for on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference_pio.ops import native
from support.layered import layered

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    return layered(tmp_path, 7)


def test_plan_says_what_is_on_the_disk(cli: Any, seven: Path) -> None:
    plain = json.loads(cli("plan", seven, "--json", "--dtype", "float32").out)
    asked = ("--dtype", "float32", "--resident-weights-gb", "0.0006")
    plan = json.loads(cli("plan", seven, "--json", *asked).out)
    assert plain["paged"] == 0 < plan["paged"]
    assert plan["weights"] < plain["weights"]
    shown = cli("plan", seven, *asked)
    assert shown.code == 0
    assert "paged: " in shown.out
    assert "on disk, read in every step, ahead of their use" in shown.out
    assert f"It fits, with {plan['paged'] / 1000:.1f} kB of layers on the disk." in shown.out


def test_less_than_the_least_is_one_line(cli: Any, seven: Path) -> None:
    cli("plan", seven, "--resident-weights-gb", "0.000001", "--dtype", "float32").complains(
        5, "cannot run within resident_weights_gb 1e-06: embedding, head", "raise it to that"
    )
    cli("plan", seven, "--resident-weights-gb", "-1").complains(2, "resident_weights_gb must be above 0")
