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


@pytest.mark.parametrize("place", ["a file", "in a file"])
def test_a_folder_that_cannot_be_is_told_before_anything_is_measured(
    cli: Any, tmp_path: Path, place: str
) -> None:
    """There is no such model: it is not looked for."""
    file = tmp_path / "file"
    file.write_text("something")
    out = file if place == "a file" else file / "inside"
    done = cli("report", "no-such-model", "--out", out)
    done.complains(4, f"the report cannot be written to {out}", "name another folder with --out")
    assert file.read_text() == "something"
