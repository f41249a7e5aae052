"""The plugin that is copied: where its code lies, and which of its names are its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from inference_pio.errors import PluginError
from inference_pio.plugin.manifest import Manifest
from inference_pio.plugin.registry import Registered
from inference_pio.scaffold.names import stem_of

_NOT_SOURCE = {"__pycache__"}


@dataclass(frozen=True)
class Source:
    """A plugin as files.

    package  the package around its class's module
    classes  names of the classes that it defines, and of the architectures that it claims
    """

    manifest: Manifest
    origin: str
    package: str
    directory: Path
    classes: frozenset[str]

    @classmethod
    def of(cls, registered: Registered) -> Source:
        """Nothing of the plugin is imported.

        Raises:
            PluginError: its code is not a package with source files.
        """
        manifest = registered.manifest
        if manifest.fallback:
            raise PluginError(f"{manifest.name!r} is no architecture: there is nothing of one to copy")
        package = manifest.plugin.partition(":")[0].rpartition(".")[0]
        spec = find_spec(package) if package else None
        places = list(spec.submodule_search_locations or ()) if spec else []
        if len(places) != 1 or not Path(places[0], "__init__.py").is_file():
            raise PluginError(
                f"{manifest.name!r} cannot be copied: {manifest.plugin} is not in a package of files"
            )
        directory = Path(places[0])
        classes = {
            node.name
            for path in directory.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ClassDef)
        }
        return cls(
            manifest, registered.origin, package, directory, frozenset(classes | {*manifest.architectures})
        )

    def files(self) -> Iterator[Path]:
        """Every file, in order; what Python itself made of them is left out."""
        for path in sorted(self.directory.rglob("*")):
            if path.is_file() and _NOT_SOURCE.isdisjoint(path.relative_to(self.directory).parts):
                yield path

    def stems(self) -> tuple[str, ...]:
        """How names of its own begin, longest first: "Gemma3Text", "Gemma3"."""
        plugin_class = self.manifest.plugin.partition(":")[2]
        heads = [re.sub(r"For[A-Z]\w*$", "", name) for name in self.manifest.architectures]
        found = {stem_of(self.manifest.name), plugin_class.removesuffix("Plugin"), *heads} - {""}
        return tuple(sorted(found, key=lambda stem: (-len(stem), stem)))
