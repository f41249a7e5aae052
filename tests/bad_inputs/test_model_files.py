"""Model files that are wrong, each through every front end: one line, the same everywhere, at once, and no process."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from bad_inputs.files import Row, copied, gguf, put_directory, put_safetensors, read_table, rows
from bad_inputs.front_ends import APART, FRONT_ENDS, READERS, Counted, Refusal, modules_from, refusal
from inference_pio import errors
from inference_pio.security import landlock
from inference_pio.security.confine import Confinement
from inference_pio.worker import booting
from support.tiny_llama import write_model

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

_TESTS = Path(__file__).parents[1]
TABLES = ("model_files.toml", "gguf_files.toml", "directories.toml")
SAFETENSORS, GGUF, DIRECTORIES = map(rows, TABLES)
_MOST_CHARACTERS = 1700
_MOST_SECONDS, _MOST_PATIENCE = 1.0, 10.0
_MOST_MEGABYTES = 20


@pytest.fixture(scope="module")
def proved_once() -> Iterator[None]:
    """What holds here is asked of a canary once for each kind of place; every worker would ask it again."""
    prove, known = booting.prove, {}

    def once(confinement: Confinement, *more: object) -> object:
        kind = (confinement.level, bool(confinement.processors))
        if kind not in known:
            known[kind] = prove(confinement, *more)  # type: ignore[arg-type]
        return known[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(booting, "prove", once)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, proved_once: None) -> Path:  # noqa: ARG001
    """A good model, which every front end takes; what they import they have imported by then. A worker takes seconds:
    `standard` starts one too.
    """
    folder = write_model(tmp_path_factory.mktemp("good") / "model")
    unknown = put_directory(
        copied(folder, tmp_path_factory.mktemp("unknown")),
        {"change": {"config.json": {"architectures": ["Ninth"], "model_type": "ninth"}}},
    )
    for front_end in FRONT_ENDS:
        if front_end != "worker":
            assert refusal(front_end, folder) is None
    assert refusal("worker", folder / "nothing.gguf") is not None
    for front_end in ("plan", "llm"):
        assert refusal(front_end, unknown) is not None
    return folder


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors(case: str, model: Path, tmp_path: Path) -> None:
    row, folder = SAFETENSORS[case], copied(model, tmp_path)
    put_safetensors(folder, row)
    begins = "model.safetensors.index.json" if "index" in row else "model.safetensors"
    check(row, folder, folder / row.get("at", begins))


@pytest.mark.parametrize("case", GGUF)
def test_gguf(case: str, model: Path, tmp_path: Path) -> None:  # noqa: ARG001 - what it imports
    row, path = GGUF[case], tmp_path / "broken.gguf"
    path.write_bytes(gguf(row))
    check(row, path, path)


@pytest.mark.parametrize("case", DIRECTORIES)
def test_directories(case: str, model: Path, tmp_path: Path) -> None:
    row = DIRECTORIES[case]
    path = put_directory(copied(model, tmp_path), row)
    check(row, path, (path if path.is_dir() else path.parent) / row["at"] if "at" in row else path)


def check(row: Row, path: Path, begins: Path) -> None:
    """Every front end that sees it refuses it in the same line, within its means."""
    stage = row.get("stage", "header")
    ends = [
        end for end in row.get("front_ends", FRONT_ENDS) if _sees(end, stage, worker=row.get("worker", False))
    ]
    most = row.get("megabytes", _MOST_MEGABYTES)
    said = {end: _within_means(partial(refusal, end, path), end, stage, most) for end in ends}
    assert not modules_from(path.parent)
    if stage == "taken":
        assert set(said.values()) == {None}
        return
    kind = getattr(errors, row.get("error", "ModelFileError"))
    texts = {refused.text for refused in said.values() if refused}
    assert len(texts) == 1, said
    assert {end: refused and refused.kind for end, refused in said.items()} == {
        end: kind.exit_code if end in ("plan", "run") else kind.__name__ for end in ends
    }
    [text] = texts
    assert text.isprintable()
    assert re.search(row["words"], text.removeprefix(str(begins))), text
    assert kind is errors.ModelNotFound or text.startswith(str(begins)), text
    assert len(text) < _MOST_CHARACTERS + len(str(begins))


def _sees(end: str, stage: str, *, worker: bool) -> bool:
    """Readers see headers, and what plans does not load; a worker is started for some of what no header says."""
    if stage == "header":
        return True
    if end in APART:
        return worker and end == "worker"
    return end not in READERS and (end != "plan" or stage != "load")


def _within_means(
    act: Callable[[], Refusal | None], end: str, stage: str, megabytes: float
) -> Refusal | None:
    modules, process = set(sys.modules), psutil.Process()
    process_before, wall, cpu = process.memory_info().rss, time.monotonic(), time.process_time()
    with Counted() as counted:
        said = act()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    if stage == "header":
        assert not counted.started
        assert not set(sys.modules) - modules
    if stage != "taken" and (end not in APART or stage == "header"):
        assert cpu < _MOST_SECONDS
        assert wall < _MOST_PATIENCE
        assert process.memory_info().rss - process_before < megabytes * 1e6
    return said


@pytest.mark.parametrize("table", TABLES)
def test_what_is_said_of_other_tests_is_so(table: str) -> None:
    """Tests that rows point to are there, and every row is in one of three lists."""
    whole = read_table(table)
    for row in whole["elsewhere"]:
        file, _, name = row["test"].partition("::")
        assert f"def {name}(" in (_TESTS / file).read_text() if name else (_TESTS / file).exists(), row
    letter, count = {
        "model_files.toml": ("F", 9),
        "gguf_files.toml": ("G", 11),
        "directories.toml": ("C", 10),
    }[table]
    named = {row["id"] for rows in whole.values() for row in rows}
    assert named == {f"{letter}{number}" for number in range(1, count + 1)}
