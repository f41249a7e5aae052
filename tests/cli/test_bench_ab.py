"""`bench ab`: two sets of options side by side, on a tiny random llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

QUICK = ("--quick", "--rounds", "1")


@pytest.mark.slow
def test_both_run_in_turns_and_the_second_is_told_by_the_first(cli: Any, tiny: Path) -> None:
    done = cli(
        *("bench", "ab", tiny, "-A", "--dtype float32 --kv-cache-dtype float32"),
        *("-B", "--dtype float32 --kv-cache-dtype int8", *QUICK, "--json"),
    )
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert [row["what"] for row in report["rows"]] == ["prefill", "decode", "batch"]
    for row in report["rows"]:
        assert row["summary"]["median"] > 0
        assert row["note"].startswith("cannot tell; ")  # one pair says nothing
    assert any("planned memory" in row["note"] for row in report["rows"])  # int8 keys and values are smaller
    assert "B --dtype float32 --kv-cache-dtype int8" in report["notes"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ([], "-A and -B ask for the same"),
        (["-A", "--dtype auto"], "-A and -B ask for the same"),
        (["-A", "--nonsense"], "-A: No such option: --nonsense"),
        (["-B", "--dtype int7"], "-B: "),
        (["-B", "--kv-cache-dtype int7"], "kv_cache_dtype must be one of"),
        (["-B", "'unbalanced"], "-B: No closing quotation"),
        (["-B", "a prompt"], "-B: "),
        (["-B", "--dtype float32", "--rounds", "-1"], "--rounds must be 0 or more"),
    ],
)
def test_wrong_options_are_one_line(cli: Any, tiny: Path, typed: list[str], says: str) -> None:
    cli("bench", "ab", tiny, *typed).complains(2, says)
