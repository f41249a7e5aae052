"""`quantize`: from a folder to a smaller one that runs, and wrong input in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_a_model_in_four_bits_runs(cli: Any, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    done = cli("quantize", tiny, out, "--tokens", 512, "--group", 64)
    assert (done.code, done.out) == (0, ""), done
    assert done.err.startswith(f"{out}: ")
    assert "14 matrices by 512 tokens of text, 1 to nearest, 5 tensors as they were" in done.err
    answer = cli("run", out, "hello", "--max-tokens", 3, "--temperature", 0)
    assert answer.code == 0, answer
    assert answer.out.strip()


def test_rounding_to_nearest_as_json(cli: Any, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    done = cli("quantize", tiny, out, "--method", "rtn", "--bits", 8, "--json")
    assert (done.code, done.err) == (0, ""), done
    facts = json.loads(done.out)
    assert facts["path"] == str(out)
    assert facts["recipe"] == {"bits": 8, "group_size": 32, "method": "rtn", "tokens": None, "again": False}
    assert (facts["compensated"], facts["nearest"], facts["kept"], facts["tokens"]) == (0, 15, 5, 0)
    stored = (out / "model.safetensors").stat().st_size
    assert facts["nbytes"] <= stored < (tiny / "model.safetensors").stat().st_size / 3


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--bits", "5"], 2, "bits must be 4 or 8, got 5"),
        (["--method", "awq"], 2, "method must be gptq or rtn, got 'awq'"),
        (["--group", "16"], 2, "the group size must be 32, 64 or 128, got 16"),
        (["--tokens", "10"], 2, "tokens must be at least 256, got 10"),
        (["--text", "/dev/null"], 2, "calibration text /dev/null is empty"),
        (["--text", "no-such-file"], 4, "calibration text no-such-file: No such file"),
        (["--tokens", "900000"], 2, "900000 were asked for: give a longer one"),
    ],
)
def test_wrong_input_is_one_line(
    cli: Any, tiny: Path, tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    out = tmp_path / "small"
    cli("quantize", tiny, out, *options).complains(code, words)
    assert not out.exists()


def test_a_model_that_is_not_there_and_a_target_that_is(cli: Any, tiny: Path, tmp_path: Path) -> None:
    cli("quantize", tmp_path / "none", tmp_path / "small").complains(4, "no such file or folder")
    cli("quantize", tiny, tmp_path).complains(2, "is there already: remove it, or give another name")
