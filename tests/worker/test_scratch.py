"""The folder that a worker may write to: what is added up, what goes however it was left, and what needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ResourceError
from inference_pio.security import landlock
from inference_pio.worker.runtime import WorkerRuntime
from inference_pio.worker.scratch import Scratch
from support.layered import layered

_DEEP = 1100


def made(tmp_path: Path, most: int | None = None) -> Scratch:
    scratch = Scratch.below(tmp_path, most)
    scratch.make()
    return scratch


def _holes(folder: Path) -> None:
    with (folder / "holes").open("wb") as file:
        file.truncate(10**12)


def _in_folders(folder: Path) -> None:
    for name in ("a", "a/b"):
        (folder / name).mkdir()
        (folder / name / "file").write_bytes(bytes(600_000))


def _deep(folder: Path) -> None:
    """Further down than a path can say."""
    before = os.getcwd()
    os.chdir(folder)
    for _ in range(_DEEP):
        os.mkdir("deep")
        os.chdir("deep")
    Path("bottom").write_bytes(b"x")
    os.chdir(before)


def _links(folder: Path) -> None:
    (folder / "up").symlink_to("/")
    (folder / "itself").symlink_to(folder)
    os.mkfifo(folder / "pipe")


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (lambda _: None, None),
        (_holes, None),
        (_links, None),
        (_in_folders, "disk_space_gb 0.001 exceeded: its files have 0.0012"),
        (_deep, "folders more than 8 deep"),
        (lambda folder: [(folder / str(n)).touch() for n in range(20_001)], "more than 20,000 files"),
    ],
)
def test_what_is_too_much(tmp_path: Path, leave: Callable[[Path], object], words: str | None) -> None:
    scratch = made(tmp_path, 1_000_000)
    leave(scratch.folder)
    found = scratch.problem()
    assert found is None if words is None else words in str(found)
    scratch.wipe()
    assert not scratch.folder.exists()
    assert scratch.problem() is None


def test_folders_without_rights_go_too(tmp_path: Path) -> None:
    scratch = made(tmp_path)
    inner = scratch.folder / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for folder in (inner, inner.parent, scratch.folder):
        folder.chmod(0)
    scratch.wipe()
    assert not scratch.folder.exists()


def test_what_an_engine_left_that_was_killed_is_swept(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from inference_pio.worker.scratch import Scratch; "
        f"s = Scratch.below(Path({str(tmp_path)!r}), None); s.make(); (s.folder / 'left').touch(); "
        "print(s.folder, flush=True); os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Path(ran.stdout.strip())
    own = made(tmp_path)
    assert (left / "left").exists()  # one that is new may belong to somebody who is about to say so
    for folder in (left, own.folder):
        os.utime(folder, (0, 0))
    other = made(tmp_path)
    assert not left.exists()
    assert own.folder.is_dir()
    assert own.folder != other.folder
    assert own.folder.stat().st_mode & 0o777 == 0o700


# In a worker -----------------------------------------------------------------------------------------------------

needs_landlock = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
PROMPT = {"prompt_token_ids": [5 + i * i % 90 for i in range(100)]}
OPTIONS: dict[str, Any] = {
    "dtype": "float32", "skip_tokenizer_init": True, "kv_cache_memory_gb": 0.02, "block_size": 16
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Subject.of("llama", tmp_path_factory.mktemp("scratch"), collected={}).checkpoint("grouped")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def limits(**changed: float) -> ResourceLimits:
    return ResourceLimits(**{"memory_gb": 2.0, "cpu_percent": 100, "gpu_memory_gb": 0, **changed})


def folder_of(llm: LLM) -> Path:
    assert isinstance(llm._runtime, WorkerRuntime)
    scratch = llm._runtime.model._cell.scratch
    assert scratch is not None
    return scratch.folder


@needs_landlock
@pytest.mark.parametrize("level", ["LOW_TRUST", "MEDIUM_TRUST", "HIGH_TRUST"])
def test_prefixes_on_the_disk_of_a_worker(checkpoint: Path, home: Path, level: str) -> None:
    options = {**OPTIONS, "security_level": SecurityLevel[level], "resource_limits": limits()}
    options |= {"kv_cache_memory_gb": 0.001, "max_model_len": 256}
    with LLM(str(checkpoint), prefix_cache_disk_gb=0.01, **options) as llm:
        runtime = llm._runtime
        first = llm.generate(PROMPT, GREEDY)[0]
        for start in range(6, 26):  # others, until memory has no room for the first
            llm.generate({"prompt_token_ids": [start + i % 60 for i in range(100)]}, GREEDY)
        folder = folder_of(llm)
        assert runtime.disk_stats()["prefix_blocks_stored"] > 0
        assert list(folder.rglob("*.block"))
        assert llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids == first.outputs[0].token_ids
    assert not folder.exists()
    assert not (home / "prefixes").exists()


@needs_landlock
@pytest.mark.parametrize("level", ["LOW_TRUST", "MEDIUM_TRUST"])
def test_layers_on_the_disk_of_a_worker(tmp_path: Path, home: Path, level: str) -> None:
    path = layered(tmp_path, 7)
    with LLM(str(path), **OPTIONS) as llm:
        wanted = llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids
    options = {**OPTIONS, "security_level": SecurityLevel[level], "resource_limits": limits()}
    with LLM(str(path), resident_weights_gb=0.0008, **options) as llm:
        assert list(folder_of(llm).rglob("*.pages"))
        assert llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids == wanted
    assert not (home / "stacks").exists()


@needs_landlock
@pytest.mark.parametrize(
    ("level", "given"),
    [("LOW_TRUST", None), ("LOW_TRUST", limits(disk_space_gb=0)), ("HIGH_TRUST", limits(disk_space_gb=0))],
)
@pytest.mark.usefixtures("home")
def test_what_needs_files_is_refused_where_there_are_none(
    checkpoint: Path, level: str, given: ResourceLimits | None
) -> None:
    with pytest.raises(ResourceError, match="prefix_cache_disk_gb: needs files, .* disk_space_gb"):
        LLM(
            str(checkpoint),
            prefix_cache_disk_gb=0.01,
            security_level=SecurityLevel[level],
            resource_limits=given,
            **OPTIONS,
        )


@needs_landlock
@pytest.mark.usefixtures("home")
def test_a_worker_that_fills_its_folder_is_ended_and_comes_back_with_an_empty_one(checkpoint: Path) -> None:
    options = {**OPTIONS, "security_level": SecurityLevel.MEDIUM_TRUST}
    with LLM(str(checkpoint), resource_limits=limits(disk_space_gb=0.001), **options) as llm:
        wanted = llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids
        runtime = llm._runtime
        assert isinstance(runtime, WorkerRuntime)
        deaths: list[str] = []
        crashed = runtime.model.crashed
        runtime.model.crashed = lambda death, again: (deaths.append(death.cause), crashed(death, again))[1]  # type: ignore[method-assign]
        for name in ("one", "two"):  # as something in the worker would
            (folder_of(llm) / name).write_bytes(bytes(900_000))
        long = SamplingParams(temperature=0, max_tokens=120, ignore_eos=True)
        for _ in range(40):
            if deaths:
                break
            llm.generate(PROMPT, long)
        assert deaths[0].startswith("disk_space_gb 0.001 exceeded: its files have 0.0018")
        assert llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids == wanted
        assert not list(folder_of(llm).rglob("*"))
