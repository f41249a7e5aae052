"""`report` on a tiny random llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_it_writes_three_files_and_prints_what_they_say(cli: Any, tiny: Path, tmp_path: Path) -> None:
    typed = ("--technique", "kv_int8", "--technique", "multi_query_attention", "--quick", "--rounds", "1")
    done = cli("report", tiny, *typed, "--dtype", "float32", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    sheet = json.loads(done.out)
    assert {line["name"]: line["status"] for line in sheet["lines"]} == {
        "kv_int8": "measured",
        "multi_query_attention": "not applicable",
    }
    written = sorted((tmp_path / "out").iterdir())
    assert [path.suffix for path in written] == [".html", ".json", ".md"]
    assert all(f"written: {path}" in done.err for path in written)
    assert json.loads(written[1].read_text()) == sheet


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("--technique", "warp"), "no technique is called 'warp'"),
        (("--rounds", "-1"), "--rounds must be 0 or more"),
        (("--dtype", "int7"), "--dtype"),
    ],
)
def test_wrong_words_are_one_line(cli: Any, tiny: Path, typed: tuple[str, ...], says: str) -> None:
    cli("report", tiny, *typed).complains(2, says)


def test_the_matrix(cli: Any) -> None:
    shown = json.loads(cli("plugins", "--matrix", "--json").out)
    assert shown["pairs"]["kv_int8 kv_int4"]["outcome"] == "excluded"
    assert "kv_int8" in cli("plugins", "--matrix").out
    cli("plugins", "llama", "--matrix").complains(2, "--matrix is of all plugins")
