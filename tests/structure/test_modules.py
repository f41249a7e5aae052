"""C15: every module imports, is reached by something, and exports what it says."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import inference_pio
from inference_pio.plugin.registry import BUILT_IN, Registry
from support.standard import STANDARD

ROOT = Path(inference_pio.__file__).parent
REPOSITORY = Path(__file__).parents[2]
# Reached from outside: the console script, plugins by registered name, tests and benchmarks by name, and what others
# import from the package by its own name.
ENTRY_POINTS = {
    "inference_pio",
    "inference_pio.__main__",  # python -m
    "inference_pio.benchmarks.alone",  # a process of its own
    "inference_pio.benchmarks.combinations",  # of the command that makes the matrix
    "inference_pio.benchmarks.lm_eval_adapter",  # the evaluation harness's
    "inference_pio.cli.main",
    "inference_pio.conformance.checks",
    "inference_pio.conformance.packed",  # for the tests of plugins that have something to pack
    "inference_pio.conformance.standard",
}
_STRING_TARGET = re.compile(r"inference_pio(?:\.\w+)+(?=:\w+$)")


def test_every_module_imports(sources: list[Any]) -> None:
    for source in sources:
        if ".tests." not in source.name:
            importlib.import_module(source.name)


def test_importing_the_package_is_light() -> None:
    program = "import inference_pio, sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert not {"torch", "numpy", "jinja2", "tokenizers", "rich", "typer"} & set(loaded.split())


def test_no_module_is_an_orphan(sources: list[Any]) -> None:
    names = {source.name for source in sources}
    reached = set(ENTRY_POINTS)
    for source in sources:
        reached |= {name for name in _imported(source, names) if name != source.name}
    for name in list(reached):  # importing a module imports the packages around it
        parts = name.split(".")
        reached |= {".".join(parts[:length]) for length in range(1, len(parts))}
    by_name = re.compile(r"inference_pio\.models\.\w+(\.plugin|\.(tests|benchmarks)(\..*)?)?$")
    orphans = sorted(name for name in names - reached if not by_name.match(name))
    assert not orphans, f"nothing imports {', '.join(orphans)}"


def _imported(source: Any, names: set[str]) -> set[str]:
    """Modules that a module imports or names as "package.module:attribute"."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(_STRING_TARGET.findall(node.value))
    if source.name == "inference_pio":
        table = next(
            node.value for node in source.tree.body if isinstance(node, ast.Assign) and _is(node, "_MODULES")
        )
        found |= {f"inference_pio.{module}" for module in ast.literal_eval(table).values()}
    return found & names


def _is(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def test_public_names_are_sorted_public_and_there(sources: list[Any]) -> None:
    seen = 0
    for source in sources:
        for node in source.tree.body:
            if isinstance(node, ast.Assign) and _is(node, "__all__"):
                seen += 1
                listed = ast.literal_eval(node.value)
                module = importlib.import_module(source.name)
                constants = [name for name in listed if name.isupper()]
                classes = [name for name in listed if name[0].isupper() and name not in constants]
                rest = [name for name in listed if not name[0].isupper()]
                in_order = [*sorted(constants), *sorted(classes), *sorted(rest)]
                assert listed == in_order, f"{source.where}: __all__ is not sorted"
                assert len(set(listed)) == len(listed), f"{source.where}: __all__ names something twice"
                for name in listed:
                    assert not name.startswith("_"), f"{source.where}: __all__ has {name}"
                    assert hasattr(module, name), f"{source.where}: __all__ has {name}, the module has not"
    assert seen >= 5


def test_every_package_is_mentioned_in_the_structure_page() -> None:
    page = (ROOT.parents[1] / "docs" / "structure.md").read_text()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"csrc"}
    missing = sorted(name for name in packages if f"| `{name}` |" not in page)
    assert not missing, f"docs/structure.md has no line for {', '.join(missing)}"
    for name in re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE):
        assert (ROOT / name).exists() or (ROOT / f"{name}.py").exists(), f"docs/structure.md describes {name}"
    for name in re.findall(r"`(\w+\.py)` \(", page):
        assert (ROOT / name).exists(), f"docs/structure.md describes {name}"


@pytest.mark.parametrize("plugin", BUILT_IN)
def test_a_plugin_has_the_standards_files_and_none_is_empty(plugin: str) -> None:
    directory = ROOT / "models" / plugin
    missing = [name for name in STANDARD if not (directory / name).is_file()]
    assert not missing, f"{plugin} lacks {', '.join(missing)}"
    own = [path for path in (directory / "specific_optimizations").glob("*.py") if path.stem != "__init__"]
    assert own, f"{plugin} has no optimisation of its own"
    for path in directory.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f"{path}: no docstring says what the file is"
        if path.stem != "__init__":
            defines = (ast.FunctionDef, ast.ClassDef, ast.Assign)
            assert any(isinstance(node, defines) for node in tree.body), f"{path}: defines nothing"


def test_every_plugin_directory_is_registered_under_its_name() -> None:
    directories = {path.parent.name for path in (ROOT / "models").glob("*/__init__.py")}
    assert directories == set(BUILT_IN)
    for name in BUILT_IN:
        assert Registry().get(name).manifest.name == name


# Its model is the one that the README, the command line and the engine are tested with.
_DEFAULT = "llama"


def test_no_plugin_but_the_default_ones_is_imported_by_other_tests() -> None:
    """Whoever takes a plugin's directory away has nothing else to change: its tests lie in it, or skip without it."""
    named = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno} imports {name}"
        for folder in ("tests", "benchmarks")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _modules(node)
        if (plugin := re.match(r"inference_pio\.models\.(\w+)", name)) and plugin[1] != _DEFAULT
    ]
    assert not named, f"use pytest.importorskip: {named}"


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
