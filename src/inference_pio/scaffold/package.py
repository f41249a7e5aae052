"""The files of a new plugin's package, made from a plugin that is there."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from inference_pio.errors import PluginError, UsageError
from inference_pio.plugin.registry import Registry
from inference_pio.scaffold.names import Names
from inference_pio.scaffold.pruned import pruned
from inference_pio.scaffold.rename import Renaming
from inference_pio.scaffold.source import Source
from inference_pio.scaffold.texts import parity_test, pyproject, readme

_DATA = {".json": Renaming.json, ".md": Renaming.text, ".py": Renaming.python}


def new_package(name: str, source_name: str, into: Path, registry: Registry) -> Path:
    """Write `into`/`name` with a plugin of that name, a copy of `source_name` under new names.

    Returns:
        The folder that was made.

    Raises:
        UsageError: the name cannot be used, or the folder is there.
        PluginError: there is no plugin called `source_name`, or its code cannot be copied.
    """
    names = Names.new(name, registry.names())
    source = Source.of(registry.get(source_name))
    target = into / name
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} is there already: nothing is written over; remove it, or use --into")
    files = package_files(source, names)
    target.mkdir(parents=True)
    try:
        for path, content in files.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(content)
    except BaseException:
        shutil.rmtree(target)
        raise
    return target


def package_files(source: Source, names: Names) -> Mapping[Path, bytes]:
    """Path within the new folder -> content."""
    renaming = Renaming.of(source, names)
    package = Path("src", names.package)
    files: dict[Path, bytes] = {}
    for path in source.files():
        where = package / path.relative_to(source.directory)
        rename = _DATA.get(path.suffix)
        if rename is None:
            files[where] = path.read_bytes()
            continue
        text = rename(renaming, path.read_text(encoding="utf-8"))
        if path.suffix == ".py":
            text = pruned(text, f"begun as a copy of {source.manifest.name}")
        files[where] = text.encode()
    files[package / "tests" / "test_parity.py"] = parity_test(source, names).encode()
    files[Path("pyproject.toml")] = pyproject(source, names, _data_kinds(files)).encode()
    files[Path("README.md")] = readme(source, names).encode()
    _refuse_what_still_imports(source, files)
    return files


def _data_kinds(files: Mapping[Path, bytes]) -> tuple[str, ...]:
    """Patterns of the files beside the code, relative to the package."""
    inside = [Path(*path.parts[2:]) for path in files if path.suffix != ".py"]
    return tuple(sorted({str(path.parent / f"*{path.suffix}") for path in inside}))


def _refuse_what_still_imports(source: Source, files: Mapping[Path, bytes]) -> None:
    """The new package stands alone: whatever of the source's it would still import is a form that is not known here."""
    for path, content in files.items():
        if path.suffix == ".py":
            left = [
                name for name in _imported(ast.parse(content)) if f"{name}.".startswith(f"{source.package}.")
            ]
            if left:
                raise PluginError(
                    f"{source.manifest.name!r} cannot be copied: {path} would still import {left[0]}"
                )


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
