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
from inference_pio.plugin.registry import BUILT_IN

ROOT = Path(inference_pio.__file__).parent
# Reached from outside: the console script, plugins by registered name, tests and benchmarks by name, what others import
# from the package by its own name, and the table that `test_configuration.py` keeps true.
ENTRY_POINTS = {
    "inference_pio",
    "inference_pio.cli.main",
    "inference_pio.config.deferred",
    "inference_pio.conformance.checks",
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


STANDARD = (
    "__init__.py",
    "config.py",
    "model.py",
    "plugin.py",
    "attention/__init__.py",
    "attention/flash_attention.py",
    "attention/sparse_attention.py",
    "attention/paged_attention.py",
    "attention/sliding_window_attention.py",
    "attention/multi_query_attention.py",
    "benchmarks/__init__.py",
    "benchmarks/benchmark_throughput.py",
    "benchmarks/benchmark_inference_speed.py",
    "benchmarks/benchmark_memory_usage.py",
    "benchmarks/benchmark_power_efficiency.py",
    "benchmarks/benchmark_optimization_impact.py",
    "benchmarks/benchmark_accuracy.py",
    "cuda_kernels/__init__.py",
    "cuda_kernels/optimizations.py",
    "fused_layers/__init__.py",
    "fused_layers/fused_layer_norm.py",
    "kv_cache/__init__.py",
    "kv_cache/compression_techniques.py",
    "linear_optimizations/__init__.py",
    "linear_optimizations/bias_removal.py",
    "prefix_caching/__init__.py",
    "prefix_caching/prefix_cache_manager.py",
    "rotary_embeddings/__init__.py",
    "rotary_embeddings/rotary_embedding.py",
    "tensor_parallel/__init__.py",
    "tensor_parallel/tensor_parallel_layers.py",
    "tests/__init__.py",
    "tests/test_plugin_integration.py",
    "tests/test_model_loading.py",
    "tests/test_inference.py",
    "tests/test_attention.py",
    "tests/test_optimizations.py",
    "tests/test_end_to_end.py",
    "specific_optimizations/__init__.py",
)


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


def test_every_plugin_directory_is_registered() -> None:
    directories = {path.parent.name for path in (ROOT / "models").glob("*/__init__.py")}
    assert directories == set(BUILT_IN)
