"""The external package of docs/adding_a_model.md, installed as a stranger's would be, keeps the contract."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import inference_pio

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "mistral"

Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Variables under which a process finds the package where pip put it, and nothing of this folder's source."""
    folder = tmp_path_factory.mktemp("mistral")
    source, target = folder / "source", folder / "installed"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    alone = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pip", *pip],
        capture_output=True,
        text=True,
        check=False,
        env=alone,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    assert (target / "inference_pio_mistral" / "tests" / "mistral-nemo-instruct-2407.jinja").is_file()
    paths = (str(target), str(Path(inference_pio.__file__).parents[1]))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "MISTRAL": str(target / "inference_pio_mistral"),
    }


def run(environment: Mapping[str, str], *arguments: str) -> Run:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=900,
    )


def cli(environment: Mapping[str, str], *arguments: str) -> Run:
    return run(environment, "-c", "from inference_pio.cli.main import main; main()", *arguments)


@pytest.mark.slow
def test_it_keeps_the_contract(environment: Mapping[str, str]) -> None:
    configs = ROOT / "tests" / "data" / "configs"
    done = cli(environment, "verify", "mistral", "--configs", str(configs), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    assert (verdict["origin"], verdict["kept"]) == ("inference-pio-mistral", True)
    by_outcome: dict[str, set[str]] = {}
    for check in verdict["checks"]:
        by_outcome.setdefault(check["verdict"], set()).add(check["number"])
    # It has no layer of its own for drafts.
    assert by_outcome == {"passed": {f"C{number}" for number in range(1, 15)}, "not applicable": {"C16"}}


@pytest.mark.slow
def test_its_own_tests_pass(environment: Mapping[str, str]) -> None:
    options = ("-q", "-W", "error", "-p", "no:cacheprovider", "-c", str(EXAMPLE / "pyproject.toml"))
    done = run(environment, "-m", "pytest", *options, f"{environment['MISTRAL']}/tests")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d{2} passed", done.stdout)


@pytest.mark.slow
def test_it_is_a_plugin_as_any_other(environment: Mapping[str, str], tmp_path: Path) -> None:
    listed = json.loads(cli(environment, "plugins", "--json").stdout)
    mistral = next(fact for fact in listed["plugins"] if fact["name"] == "mistral")
    assert mistral["origin"] == "inference-pio-mistral"
    copy = cli(environment, "new-model", "ministral", "--from", "mistral", "--into", str(tmp_path))
    assert copy.returncode == 0, copy.stderr
    text = "\n".join(path.read_text() for path in (tmp_path / "ministral").rglob("*.py"))
    assert "inference_pio_mistral" not in text
    assert "inference_pio_ministral.plugin:MinistralPlugin" in text


def test_it_imports_no_plugin_of_ours() -> None:
    for path in EXAMPLE.rglob("*.py"):
        assert "inference_pio.models" not in path.read_text(), path


def test_the_page_names_files_that_are_there() -> None:
    page = (ROOT / "docs" / "adding_a_model.md").read_text()
    named = set(re.findall(r"`([\w/]+\.(?:py|toml|jinja|md))`", page))
    package = EXAMPLE / "src" / "inference_pio_mistral"
    missing = [
        name for name in sorted(named) if not (package / name).exists() and not (EXAMPLE / name).exists()
    ]
    assert {"config.py", "tests/reference.py", "pyproject.toml"} <= named
    assert missing == []
