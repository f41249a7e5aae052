"""`verify` and `new-model`: verdicts in words, exit codes, and no traceback whatever a plugin does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio.conformance import checks
from inference_pio.conformance.checks import Check
from inference_pio.conformance.subject import Subject, load_case
from inference_pio.plugin.registry import forget_registry
from support.installed import metadata_of

_MANIFEST = """
from inference_pio.plugin.manifest import Manifest
FACTS = {{"api_version": 1, "architectures": ("X",), "description": ""}}
MANIFEST = Manifest(name="{name}", plugin="brought_{name}.plugin:P", **FACTS)
"""


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Installs a package with a manifest and the files given, until the test ends."""

    def make(name: str, **files: str) -> None:
        folder = tmp_path / name
        package = folder / "src" / f"brought_{name}"
        for path, text in {"__init__": _MANIFEST.format(name=name), **files}.items():
            file = package / f"{path.replace('__in__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "brought-{name}"\nversion = "1"\n'
            f'[project.entry-points."inference_pio.models"]\n{name} = "brought_{name}:MANIFEST"\n'
        )
        monkeypatch.syspath_prepend(str(metadata_of(folder)))
        forget_registry()

    yield make
    forget_registry()
    load_case.cache_clear()
    for module in [name for name in sys.modules if name.startswith("brought_")]:
        del sys.modules[module]


def test_a_plugin_that_keeps_the_contract(start: Any) -> None:
    """In a process of its own: the libraries that references come from draw no progress bars between the verdicts."""
    process = start("verify", "llama", "--only", "C3", "--only", "c11-ranks_agree")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[:5]] == [["C3", "passed"]] * 2 + [["C11", "passed"]] * 3
    assert "A key with another value changes the configuration or is refused" in lines[0]
    assert lines[5] == ""
    assert lines[6].startswith("llama (built-in) keeps the contract: 5 of 5 checks passed.")


def test_collected_configurations(cli: Any, tmp_path: Path) -> None:
    done = cli("verify", "llama", "--only", "C2")
    assert done.code == 0
    assert "not applicable" in done.out
    assert "no configurations of other models were given" in done.out
    (tmp_path / "one.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    done = cli("verify", "llama", "--only", "C2", "--configs", tmp_path)
    assert done.code == 6
    assert "one.json: claimed by ['llama'], the case says False" in done.out
    assert "llama (built-in) does not keep the contract: 1 of 2 checks passed, 1 failed." in done.out
    (tmp_path / "one.json").write_text("[1]")
    cli("verify", "llama", "--configs", tmp_path).complains(3, "one.json", "must be a JSON object")
    cli("verify", "llama", "--configs", tmp_path / "nowhere").complains(2, "nowhere holds no *.json")


def test_json(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_talks(subject: Subject) -> None:
        """It prints."""
        print("something that is no JSON", subject.manifest.name)

    monkeypatch.setattr(
        checks, "CHECKS", (Check("C1", check_talks), Check("C2", check_talks, needs="collected"))
    )
    done = cli("verify", "llama", "--json")
    verdict = json.loads(done.out)
    assert (verdict["plugin"], verdict["origin"], verdict["kept"]) == ("llama", "built-in", True)
    assert verdict["counts"] == {"passed": 1, "not applicable": 1}
    first, second = verdict["checks"]
    assert first.pop("seconds") >= 0
    assert first == {
        "number": "C1",
        "name": "C1-talks",
        "question": "It prints.",
        "verdict": "passed",
        "why": "",
    }
    assert second["why"] == "no configurations of other models were given to look through"
    assert "no JSON llama" in done.err


def test_every_way_to_fail_is_told_in_words(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_differs(_subject: Subject) -> None:
        """Is it equal?"""
        raise AssertionError("it differs by\n\x1b[31m3")

    def check_says_nothing(_subject: Subject) -> None:
        """Does it say something?"""
        raise AssertionError

    def check_falls_over(_subject: Subject) -> None:
        """Does it stand?"""
        {}["absent"]

    def check_in_the_plugin(subject: Subject) -> None:
        """Is the plugin's code the cause?"""
        subject.plugin().cache_specs(None, None, None)

    def check_is_refused(subject: Subject) -> None:
        """Is it read?"""
        subject.plugin().read_config({"model_type": "llama"}, "config.json")

    def check_passes(_subject: Subject) -> None:
        """Is it still run?"""

    functions = (
        check_differs,
        check_says_nothing,
        check_falls_over,
        check_in_the_plugin,
        check_is_refused,
        check_passes,
    )
    monkeypatch.setattr(checks, "CHECKS", tuple(Check("C5", function) for function in functions))
    done = cli("verify", "llama")
    assert (done.code, done.err) == (6, "")
    told = done.out.splitlines()
    assert told[:2] == [f"{'C5':<5}{'failed':<16}Is it equal?", " " * 21 + "it differs by \ufffd[31m3"]
    assert told[3].strip().startswith("an assertion without words (test_verify.py:")
    assert told[5].strip().startswith("the check ended in KeyError: 'absent' (test_verify.py:")
    assert "the check ended in AttributeError: 'NoneType'" in told[7]
    assert "(kv_cache/compression_techniques.py:" in told[7]
    assert told[9].strip() == "config.json: num_attention_heads: is missing"
    assert told[10] == f"{'C5':<5}{'passed':<16}Is it still run?"
    assert "does not keep the contract: 1 of 6 checks passed, 5 failed." in told[-1]


def test_references_that_are_not_installed(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "inference_pio.models.llama.tests.reference", raising=False)
    done = cli("verify", "llama", "--only", "C3", "--only", "C5")
    assert (done.code, done.err) == (4, "")
    assert done.out.count("transformers is not installed: pip install 'inference-pio[reference]'") == 2
    assert "llama (built-in) is not fully checked: 2 of 4 checks passed, 2 not run." in done.out


def test_wrong_names(cli: Any) -> None:
    cli("verify", "lama").complains(6, "no plugin is called 'lama'; did you mean 'llama'?")
    cli("verify", "llama", "--only", "C99").complains(2, "no check is called C99; there are C1, C2, C3")
    cli("verify").complains(2, "--help`")


def test_packages_that_are_not_whole(cli: Any, bring: Any) -> None:
    bring("bare")
    cli("verify", "bare").complains(6, "'bare' brings no case for the contract: brought_bare/tests/case.py")
    bring("torn", tests__in____init__="", tests__in__case="CASE = 1 +\n")
    cli("verify", "torn").complains(6, "brought_torn.tests.case:CASE: SyntaxError: invalid syntax")
    bring("other", tests__in____init__="", tests__in__case="CASE = 1\n")
    cli("verify", "other").complains(6, "brought_other.tests.case:CASE is not a PluginCase of 'other'")
    bring("needy", tests__in____init__="", tests__in__case="import gguf.nothing_of_the_kind\n")
    cli("verify", "needy").complains(6, "No module named 'gguf.nothing_of_the_kind'")


def test_a_case_whose_references_are_not_installed(
    cli: Any, bring: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    bring("poor", tests__in____init__="", tests__in__case="import transformers\n")
    cli("verify", "poor").complains(
        4, "transformers is not installed: pip install 'inference-pio[reference]'"
    )


def test_a_manifest_that_does_not_import_is_told(cli: Any, bring: Any) -> None:
    bring("broken", __init__="MANIFEST = nothing\n")
    cli("verify", "broken").complains(6, "brought_broken:MANIFEST: NameError: name 'nothing' is not defined")
    assert "broken does not load: brought_broken:MANIFEST: NameError" in cli("plugins").out


def test_new_model(cli: Any, tmp_path: Path) -> None:
    done = cli("new-model", "mistral", "--from", "llama", "--into", tmp_path / "new folder")
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "new folder" / "mistral"
    assert f"pip install --no-build-isolation -e '{folder}'" in done.out
    assert "inference-pio verify mistral" in done.out
    assert 'mistral = "inference_pio_mistral:MANIFEST"' in (folder / "pyproject.toml").read_text()
    cli("new-model", "mistral", "--from", "llama", "--into", folder.parent).complains(2, "is there already")
    cli("new-model", "llama", "--from", "llama", "--into", tmp_path).complains(2, "called 'llama'")
    cli("new-model", "mistral", "--from", "lama", "--into", tmp_path).complains(6, "did you mean 'llama'?")
    cli("new-model", "mistral", "--into", tmp_path).complains(2, "--from", "--help`")
    (tmp_path / "file").write_text("")
    cli("new-model", "mistral", "--from", "llama", "--into", tmp_path / "file").complains(1, "file")
