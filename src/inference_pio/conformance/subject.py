"""The plugin under test, with its tiny checkpoints written once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from inference_pio.conformance.case import CheckpointKind, PluginCase, Raw, ReferenceModel
from inference_pio.conformance.tiny_tokenizer import write_tokenizer
from inference_pio.errors import PluginError, UnavailableError
from inference_pio.imports import import_object
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.manifest import Manifest
from inference_pio.plugin.registry import default_registry

# What the extra `reference` of pyproject.toml installs.
_REFERENCES = frozenset({"accelerate", "gguf", "safetensors", "transformers"})


@dataclass
class Subject:
    """One registered plugin.

    Args:
        workdir: an empty directory for checkpoints.
        collected: config.json files by name, of this and of other architectures.
    """

    manifest: Manifest
    case: PluginCase
    workdir: Path
    collected: Mapping[str, Raw]
    _references: dict[str, ReferenceModel] = field(default_factory=dict)
    _paths: dict[tuple[str, CheckpointKind], Path] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, workdir: Path, collected: Mapping[str, Raw]) -> Subject:
        """The plugin registered as `name`, with the case that lies in its own tests. It is trusted from here on:
        whoever checks a plugin imports it.
        """
        manifest = default_registry().get(name).manifest
        default_registry().trust(name)
        return cls(manifest, load_case(manifest), workdir, collected)

    def plugin(self) -> ModelPlugin:
        return default_registry().create(self.manifest.name)

    def reference(self, tiny: str) -> ReferenceModel:
        if tiny not in self._references:
            self._references[tiny] = self.case.reference(self.case.tiny[tiny])
        return self._references[tiny]

    def checkpoint(self, tiny: str, kind: CheckpointKind = "safetensors") -> Path:
        """A checkpoint of the reference's weights, with a small tokenizer beside it where files are separate."""
        if (tiny, kind) not in self._paths:
            directory = self.workdir / f"{self.case.name}-{tiny}-{kind}"
            directory.mkdir(parents=True)
            path = self.reference(tiny).save(directory, kind)
            if path.is_dir():
                _name_the_architecture(path, self.case.tiny[tiny])
                write_tokenizer(path)
            self._paths[tiny, kind] = path
        return self._paths[tiny, kind]


@cache
def load_case(manifest: Manifest) -> PluginCase:
    """`CASE` of `<plugin package>.tests.case`.

    Raises:
        UnavailableError: it needs a package of the extra `reference` that is not installed.
        PluginError: the plugin has none, it does not import, or it is another plugin's.
    """
    package = package_of(manifest)
    try:
        case = import_object(f"{package}.tests.case:CASE")
    except PluginError as error:
        if missing := missing_reference(error):
            raise UnavailableError(f"{package}.tests.case: {missing}") from error
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name in (
            f"{package}.tests",
            f"{package}.tests.case",
        ):
            raise PluginError(
                f"{manifest.name!r} brings no case for the contract: {package}/tests/case.py with a CASE of "
                "PluginCase states its tiny models and their reference"
            ) from error
        raise
    if not isinstance(case, PluginCase) or case.name != manifest.name:
        raise PluginError(f"{package}.tests.case:CASE is not a PluginCase of {manifest.name!r}")
    return case


def package_of(manifest: Manifest) -> str:
    """The package around the module that holds the plugin's class."""
    return manifest.plugin.partition(":")[0].rpartition(".")[0]


def missing_reference(error: BaseException | None) -> str:
    """If `error` comes from a package of the extra `reference` that is not installed, which, and how to get it."""
    while error is not None:
        name = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
        if name in _REFERENCES:
            return f"{name} is not installed: pip install 'inference-pio[reference]'"
        error = error.__cause__
    return ""


def _name_the_architecture(directory: Path, raw: Mapping[str, Any]) -> None:
    """The case's own config.json: what the reference wrote may spell the same facts in another way."""
    (directory / "config.json").write_text(json.dumps(raw))
