"""The command: what it refuses, how peers are set up, and the two engines of this environment on one small model."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_pio.benchmarks.workload import Workload
from peers.__main__ import main
from peers.engines import PEERS
from peers.environments import PeerUnavailable, Recipe, default_folder, interpreter
from peers.measure import Contestant, measure_model
from peers.results import result_of
from peers.rows import OURS, TRANSFORMERS, Bar, Row
from roofline.__main__ import main as bench


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "gpt"], "error: no row is called 'gpt'"),
        (
            ["--peers", "llama.cpp,magic"],
            "error: no peer is called 'magic'; there are inference-pio, llama.cpp",
        ),
    ],
)
def test_unknown_names_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert printed.count("\n") == 1


def test_no_rounds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
    assert "a whole number from 1 up, got '0'" in capsys.readouterr().err


def test_a_quick_run_is_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (main, bench):
        with pytest.raises(SystemExit):
            command(["--quick", "--record"])
        assert "there is nothing to --record" in capsys.readouterr().err


def test_the_folder_of_the_peers_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path))
    monkeypatch.delenv("INFERENCE_PIO_PEERS", raising=False)
    assert default_folder() == tmp_path / "peers"
    monkeypatch.setenv("INFERENCE_PIO_PEERS", str(tmp_path / "else"))
    assert default_folder() == tmp_path / "else"


@pytest.mark.slow
def test_an_environment_is_built_once_and_again_when_its_recipe_changes(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = Recipe(packages=("pip",))  # there already: nothing is fetched
    broken = Recipe(packages=("./no-such-package",))
    with pytest.raises(PeerUnavailable, match="peer cannot be set up: ERROR: .*no-such-package"):
        interpreter("peer", broken, tmp_path, said.append)
    said.clear()
    python = interpreter("peer", recipe, tmp_path, said.append)  # what was left half built does not count
    assert python.is_file()
    assert said[-1].startswith("peer: ready after")
    assert len(said) == 2
    assert interpreter("peer", recipe, tmp_path, said.append) == python
    assert len(said) == 2
    with pytest.raises(PeerUnavailable):
        interpreter("peer", broken, tmp_path, said.append)
    assert len(said) == 3


@pytest.mark.slow
def test_our_worker_and_that_of_transformers_run_the_same_model(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [
        Row("batch", "tiny", "", Workload(16, 4, concurrency=4), "output", Bar(TRANSFORMERS, 0.0)),
        Row("after", "tiny", "", Workload(16, 4), "output after the first", Bar(TRANSFORMERS, 0.0)),
    ]
    said: list[str] = []
    contestants = {
        name: Contestant(PEERS[name].launch(tmp_path, said.append), tiny_llama)
        for name in (OURS, TRANSFORMERS)
    }
    measured, ready = measure_model(rows, contestants, rounds=1, threads=1, say=said.append)
    assert ready[OURS].vocab_size == ready[TRANSFORMERS].vocab_size == 272
    for one in measured:
        assert not one.failed
        result = result_of(one, {})
        assert result.met is True
        same = result.engines[TRANSFORMERS].same_first_tokens
        assert same is not None
        assert same >= 0.5
