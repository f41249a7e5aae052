"""A new plugin's package: complete, on its own, registered by its entry point alone, right from the start."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_pio import create_plugin
from inference_pio.conformance.checks import CHECKS
from inference_pio.conformance.subject import Subject
from inference_pio.conformance.verdict import outcomes
from inference_pio.errors import PluginError, UsageError
from inference_pio.plugin.manifest import Manifest
from inference_pio.plugin.registry import Registry, default_registry
from inference_pio.scaffold.package import new_package
from support.standard import STANDARD

Make = Callable[[str, str], Path]
# A name that Transformers has too, and one that nobody has.
PAIRS = [("mistral", "llama"), *([("my_model", "qwen2")] if "qwen2" in default_registry().names() else [])]
# Those that need no model to be run.
FAST = {"C1", "C2", "C3", "C4"}


@pytest.mark.parametrize("source", default_registry().names())
def test_every_plugin_can_be_a_source(make: Make, source: str) -> None:
    """Its standard layout under new names; nothing of the source is imported, and the plugin states its facts."""
    origin = default_registry().get(source).manifest
    folder = make("ninth", source)
    package = folder / "src" / "inference_pio_ninth"
    assert [name for name in STANDARD if not (package / name).is_file()] == []
    old = origin.plugin.partition(":")[0].removesuffix(".plugin")
    for path in folder.rglob("*.py"):
        text = path.read_text()
        ast.parse(text)
        assert old not in text, f"{path} names {old}"
    registered = default_registry().get("ninth")
    assert registered.origin == "inference-pio-ninth"
    assert registered.manifest.plugin.startswith("inference_pio_ninth.plugin:Ninth")
    assert set(registered.manifest.architectures).isdisjoint(origin.architectures)
    subject = Subject.of("ninth", folder / "checkpoints", collected={})  # trusted from here on
    plugin, theirs = create_plugin("ninth"), create_plugin(source)
    stated = [[fact.name for fact in each.techniques(each.config)] for each in (plugin, theirs)]
    assert stated[0] == stated[1]
    assert subject.case.name == "ninth"
    assert default_registry().for_checkpoint(subject.case.tiny[subject.case.typical], "x").name == "ninth"


@pytest.mark.parametrize(("name", "source"), PAIRS)
def test_the_copy_keeps_the_contract_but_for_its_reference(make: Make, name: str, source: str) -> None:
    folder = make(name, source)
    subject = Subject.of(name, folder / "checkpoints", collected={})
    checks = [check for check in CHECKS if check.number in FAST or check.name == "C5-whose_reference"]
    found = {outcome.name: outcome for outcome in outcomes(subject, checks)}
    wrong = found.pop("C5-whose_reference")
    stem = {"mistral": "Mistral", "my_model": "MyModel"}[name]
    assert wrong.verdict == "failed"
    assert f"ForCausalLM and the plugin claims {stem}ForCausalLM" in wrong.why
    assert {outcome.verdict for outcome in found.values()} == {"passed", "not applicable"}, found
    assert [outcome.name for outcome in found.values() if outcome.verdict == "not applicable"] == [
        "C2-claims"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source"), PAIRS)
def test_only_the_parity_test_of_the_copy_fails(make: Make, name: str, source: str) -> None:
    """Its own test suite, run as its author runs it: green, but for the test that says what to do."""
    folder = make(name, source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=900,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert len(failed) == 2, done.stdout
    assert all("tests/test_parity.py" in line for line in failed), done.stdout
    assert "compare it with an implementation of its own architecture" in done.stdout
    said = (folder / "src" / f"inference_pio_{name}" / "tests" / "test_parity.py").read_text()
    assert "1. `tests/reference.py`" in said
    subject = Subject.of(name, folder / "checkpoints", collected={})
    slow = [check for check in CHECKS if check.number not in FAST and check.name != "C5-whose_reference"]
    assert [outcome for outcome in outcomes(subject, slow) if outcome.verdict == "failed"] == []


def test_a_copy_can_be_copied(make: Make) -> None:
    make("second", "llama")
    third = make("third", "second")
    text = "\n".join(path.read_text() for path in third.rglob("*.py"))
    assert "inference_pio_second" not in text
    assert "Second" not in text
    assert create_plugin("third").manifest.description == "begun as a copy of second"
    assert "see the licence of inference-pio-second" in (third / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Mistral", "use 1 to 64 of a-z, 0-9 and _, a letter first"),
        ("4x", "a letter first"),
        ("my-model", "a-z, 0-9 and _"),
        ("", "a letter first"),
        ("x" * 65, "1 to 64"),
        ("../etc", "a-z"),
        ("class", "a word of Python"),
        ("match", "a word of Python"),
        ("llama", "there is a plugin called 'llama'"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        new_package(name, "llama", tmp_path, default_registry())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mistral").mkdir()
    with pytest.raises(UsageError, match=r"mistral is there already: nothing is written over"):
        new_package("mistral", "llama", tmp_path, default_registry())
    (tmp_path / "loose").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is there already"):
        new_package("loose", "llama", tmp_path, default_registry())
    assert list((tmp_path / "mistral").iterdir()) == []


def test_a_package_of_that_name_is_not_shadowed(make: Make, tmp_path: Path) -> None:
    """An installed package whose entry point says another name."""
    make("mistral", "llama")
    with pytest.raises(UsageError, match="a package inference_pio_mistral is installed"):
        new_package("mistral", "llama", tmp_path / "other", Registry())


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote: list[Path] = []
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if len(wrote) == 5:
            raise OSError(28, "No space left on device")
        wrote.append(path)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        new_package("mistral", "llama", tmp_path, default_registry())
    assert list(tmp_path.iterdir()) == []


def test_sources_that_cannot_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PluginError, match="did you mean 'llama'"):
        new_package("mistral", "lama", tmp_path, default_registry())
    registry: Any = Registry()
    facts = {"api_version": 1, "architectures": ("LoneForCausalLM",), "description": ""}
    lone = Manifest(name="lone", plugin="lone:Plugin", **facts)
    monkeypatch.setattr(registry, "get", lambda _name: type("Found", (), {"manifest": lone, "origin": "x"}))
    with pytest.raises(
        PluginError, match="'lone' cannot be copied: lone:Plugin is not in a package of files"
    ):
        new_package("mistral", "lone", tmp_path, registry)
    odd = tmp_path / "odd_package"
    odd.mkdir()
    (odd / "__init__.py").write_text("import odd_package.plugin\nimport odd_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    manifest = Manifest(name="odd", plugin="odd_package.plugin:Plugin", **facts)
    monkeypatch.setattr(
        registry, "get", lambda _name: type("Found", (), {"manifest": manifest, "origin": "x"})
    )
    new_package("mistral", "odd", tmp_path, registry)
    text = (tmp_path / "mistral" / "src" / "inference_pio_mistral" / "__init__.py").read_text()
    assert text == "import inference_pio_mistral.plugin\nimport inference_pio_mistral\n"
