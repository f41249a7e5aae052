"""Which plugins there are: built-in names and entry points. Nothing of a model is imported to learn that."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from inference_pio.errors import PluginError, UnsupportedArchitecture
from inference_pio.imports import import_object
from inference_pio.plugin.manifest import Manifest

if TYPE_CHECKING:
    from inference_pio.plugin.base import ModelPlugin

ENTRY_POINT_GROUP = "inference_pio.models"
# What runs architectures without a plugin of their own, and what says whether it can be tried.
BRIDGE = "transformers"
_BRIDGE_MANIFEST = "inference_pio.bridge:MANIFEST"
_BRIDGE_REFUSAL = "inference_pio.bridge.offer:refusal"


def _directories() -> tuple[str, ...]:
    """One plugin per directory of `models`: putting one there, or taking one away, is all there is to do."""
    spec = find_spec("inference_pio.models")
    places = spec.submodule_search_locations if spec else None
    return tuple(sorted(found.name for found in iter_modules(places) if found.ispkg)) if places else ()


BUILT_IN = _directories()


@dataclass(frozen=True)
class Registered:
    """A plugin and where it comes from: "built-in", or the distribution that brings it."""

    manifest: Manifest
    origin: str


class Registry:
    """Plugins by name. Manifests are read on first use; two claims on one name or architecture are an error.

    Args:
        bridge: also know the plugin `BRIDGE`, which is nobody's architecture: `names` and `all` leave it out.
    """

    def __init__(
        self,
        built_in: tuple[str, ...] = BUILT_IN,
        external: tuple[EntryPoint, ...] = (),
        *,
        bridge: bool = False,
    ) -> None:
        self._targets: dict[str, tuple[str, str]] = {
            name: (f"inference_pio.models.{name}:MANIFEST", "built-in") for name in built_in
        }
        self._bridge = bridge
        if bridge:
            self._targets[BRIDGE] = (_BRIDGE_MANIFEST, "built-in")
        for entry in external:
            origin = entry.dist.name if entry.dist else entry.value
            if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,63}", entry.name):
                raise PluginError(f"plugin name {entry.name!r} of {origin}: use 1 to 64 of a-z, 0-9 and _")
            if entry.name in self._targets:
                raise PluginError(
                    f"two plugins are called {entry.name!r}: {self._targets[entry.name][1]} and {origin}; remove one"
                )
            self._targets[entry.name] = (entry.value, origin)
        self._manifests: dict[str, Registered] = {}

    def names(self) -> tuple[str, ...]:
        """Of architectures, sorted."""
        return tuple(sorted(set(self._targets) - {BRIDGE} if self._bridge else self._targets))

    def get(self, name: str) -> Registered:
        """The plugin called `name`.

        Raises:
            PluginError: there is none (with the nearest name), or its manifest does not load or fit.
        """
        if name not in self._targets:
            near = difflib.get_close_matches(name, self._targets, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.names())}"
            raise PluginError(f"no plugin is called {name!r}; {hint}")
        if name not in self._manifests:
            target, origin = self._targets[name]
            manifest = import_object(target)
            if not isinstance(manifest, Manifest):
                raise PluginError(f"{target} of {origin} is not a Manifest but {type(manifest).__name__}")
            if manifest.name != name:
                raise PluginError(
                    f"{target} of {origin} is registered as {name!r} but calls itself {manifest.name!r}"
                )
            self._manifests[name] = Registered(manifest, origin)
        return self._manifests[name]

    def all(self) -> tuple[Registered, ...]:
        return tuple(self.get(name) for name in self.names())

    def for_checkpoint(self, raw: Mapping[str, Any], path: str) -> Manifest:
        """The one plugin that claims this checkpoint, by what its config.json or GGUF metadata says; else the bridge.

        Raises:
            UnsupportedArchitecture: none does; the message lists those that are supported.
            PluginError: two do.
        """
        claims = [found for found in self.all() if claims_checkpoint(found.manifest, raw)]
        if len(claims) > 1:
            who = " and ".join(f"{found.manifest.name} ({found.origin})" for found in claims)
            raise PluginError(f"{path}: two plugins claim {_asked(raw)}: {who}; remove one")
        if not claims:
            why = self._no_bridge(raw)
            if why is None:
                return self.get(BRIDGE).manifest
            known = {name for found in self.all() for name in _claimable(found.manifest, raw)}
            raise UnsupportedArchitecture(
                path,
                f"no plugin for architecture {_asked(raw)}",
                hint=f"supported: {', '.join(sorted(known))}; others come as plugin packages{why}",
            )
        return claims[0].manifest

    def choose(self, raw: Mapping[str, Any], path: str, asked: str | None) -> Manifest:
        """The plugin called `asked`, or the one for this checkpoint where None is."""
        return self.for_checkpoint(raw, path) if asked is None else self.get(asked).manifest

    def _no_bridge(self, raw: Mapping[str, Any]) -> str | None:
        """None where the bridge may try; else the end of a sentence that says why not."""
        if not self._bridge or "general.architecture" in raw:
            return ""
        why: str | None = import_object(_BRIDGE_REFUSAL)(raw)
        return None if why is None else f"; {why}"

    def part(self, name: str, part: str) -> Any:
        """What a plugin's package has at a place that is a convention, such as "benchmarks.workloads:SUITE"; None
        where it has no such module.

        Raises:
            PluginError: there is no such plugin, or the module does not import or lacks the object.
        """
        self.get(name)
        target = f"{self._targets[name][0].partition(':')[0]}.{part}"
        module = target.partition(":")[0]
        try:
            found = find_spec(module)
        except ModuleNotFoundError as error:  # a package around it
            if error.name is None or not module.startswith(f"{error.name}."):
                raise PluginError(f"{target}: {error}") from error
            found = None
        return import_object(target) if found else None

    def create(self, name: str, **kwargs: Any) -> ModelPlugin:
        """A new plugin object."""
        plugin_class = import_object(self.get(name).manifest.plugin)
        plugin: ModelPlugin = plugin_class(**kwargs)
        return plugin


def claims_checkpoint(manifest: Manifest, raw: Mapping[str, Any]) -> bool:
    """Whether a plugin says of itself that it runs the architecture that a config.json or GGUF metadata names."""
    return not _names(raw).isdisjoint(_claimable(manifest, raw))


def _names(raw: Mapping[str, Any]) -> set[str]:
    """What the checkpoint calls its architecture; `model_type` counts where `architectures` is missing."""
    if "general.architecture" in raw:
        return {str(raw["general.architecture"])}
    stated = raw.get("architectures") or [raw.get("model_type") or "(not stated)"]
    return {str(name) for name in stated} if isinstance(stated, list) else {str(stated)}


def _asked(raw: Mapping[str, Any]) -> str:
    return ", ".join(sorted(_names(raw)))


def _claimable(manifest: Manifest, raw: Mapping[str, Any]) -> tuple[str, ...]:
    if "general.architecture" in raw:
        return manifest.gguf_architectures
    return manifest.architectures if raw.get("architectures") else (manifest.name,)


@cache
def default_registry() -> Registry:
    """Built-in plugins and those of installed packages, read once per process."""
    return Registry(external=tuple(entry_points(group=ENTRY_POINT_GROUP)), bridge=True)


def create_plugin(name: str, **kwargs: Any) -> ModelPlugin:
    """A new plugin object by name, built-in or installed: `create_plugin("llama")`."""
    return default_registry().create(name, **kwargs)
