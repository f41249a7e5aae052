"""Which plugins there are: built-in names and those of others. Nothing of a model is imported to learn that, and
nothing of others unless their operator trusts them.
"""

from __future__ import annotations

import difflib
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from inference_pio.errors import PluginError, UnsupportedArchitecture
from inference_pio.imports import import_object
from inference_pio.plugin.manifest import Manifest

if TYPE_CHECKING:
    from inference_pio.plugin.base import ModelPlugin

_log = logging.getLogger("inference_pio")
ENTRY_POINT_GROUP = "inference_pio.models"
# Which plugins of others there are, and what one says about itself, asked where it can do no harm.
_EXTERNAL = "inference_pio.packages.external:external_plugins"
_ASK = "inference_pio.packages.manifests:checked_manifest_of"
# Stands in this process for a plugin that runs in another.
_REMOTE = "inference_pio.worker.remote:remote_plugin"
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
class External:
    """A plugin of others.

    target   "package.module:MANIFEST"
    origin   the distribution that brings it
    folders  where it is imported from, beside where this process imports from
    """

    name: str
    target: str
    origin: str
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registered:
    """A plugin and where it comes from: "built-in", or the distribution that brings it, which `external` then is."""

    manifest: Manifest
    origin: str
    external: External | None = None


class Registry:
    """Plugins by name. Manifests are read on first use; two claims on one name or architecture are an error.

    Args:
        bridge: also know the plugin `BRIDGE`, which is nobody's architecture: `names` and `all` leave it out.
        ask: what a plugin of others says about itself; None: a locked child imports it.
    """

    def __init__(
        self,
        built_in: tuple[str, ...] = BUILT_IN,
        external: tuple[External, ...] = (),
        *,
        bridge: bool = False,
        ask: Callable[[External], Manifest] | None = None,
    ) -> None:
        self._targets = {name: f"inference_pio.models.{name}:MANIFEST" for name in built_in}
        self._bridge, self._ask = bridge, ask
        if bridge:
            self._targets[BRIDGE] = _BRIDGE_MANIFEST
        self._external: dict[str, External] = {}
        self._trusted: set[str] = set()
        for found in external:
            self._add(found)
        self._manifests: dict[str, Registered] = {}
        self._reported: set[str] = set()

    def _add(self, found: External) -> None:
        name, origin = found.name, found.origin
        if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,63}", name):
            raise PluginError(f"plugin name {name!r} of {origin}: use 1 to 64 of a-z, 0-9 and _")
        if name in self._targets:
            other = self._external[name].origin if name in self._external else "built-in"
            raise PluginError(f"two plugins are called {name!r}: {other} and {origin}; remove one")
        self._targets[name] = found.target
        self._external[name] = found

    @property
    def has_external(self) -> bool:
        return bool(self._external)

    def trust(self, name: str) -> None:
        """Let this process import the plugin `name`, as it does built-in ones, for good."""
        if name in self._external and name not in self._trusted:
            sys.path.extend(self._external[name].folders)
            self._trusted.add(name)

    def is_elsewhere(self, name: str) -> bool:
        """Whether the plugin `name` is one of others that this process does not import."""
        return name in self._external and name not in self._trusted

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
            target, external = self._targets[name], self._external.get(name)
            origin = "built-in" if external is None else external.origin
            if external is not None and self.is_elsewhere(name):
                manifest = (self._ask or import_object(_ASK))(external)
            else:
                manifest = import_object(target)
            if not isinstance(manifest, Manifest):
                raise PluginError(f"{target} of {origin} is not a Manifest but {type(manifest).__name__}")
            if manifest.name != name:
                raise PluginError(
                    f"{target} of {origin} is registered as {name!r} but calls itself {manifest.name!r}"
                )
            self._manifests[name] = Registered(manifest, origin, external)
        return self._manifests[name]

    def all(self) -> tuple[Registered, ...]:
        """Those that load. Of others' that do not there is a line in the log, once: they are in nobody's way."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except PluginError as error:
                if name not in self._external:
                    raise
                if name not in self._reported:
                    self._reported.add(name)
                    _log.warning("plugin %s is left out: %s", name, error)
        return tuple(found)

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
            PluginError: there is no such plugin, it runs elsewhere, or the module does not import or lacks the object.
        """
        self._require_here(name)
        target = f"{self._targets[name].partition(':')[0]}.{part}"
        module = target.partition(":")[0]
        try:
            found = find_spec(module)
        except ModuleNotFoundError as error:  # a package around it
            if error.name is None or not module.startswith(f"{error.name}."):
                raise PluginError(f"{target}: {error}") from error
            found = None
        return import_object(target) if found else None

    def plugin_class(self, name: str) -> type[ModelPlugin]:
        """
        Raises:
            PluginError: there is no such plugin, it runs elsewhere, or it does not import.
        """
        self._require_here(name)
        found: type[ModelPlugin] = import_object(self.get(name).manifest.plugin)
        return found

    def create(self, name: str, **kwargs: Any) -> ModelPlugin:
        """A new plugin object; raises as `plugin_class` does."""
        return self.plugin_class(name)(**kwargs)

    def _require_here(self, name: str) -> None:
        origin = self.get(name).origin
        if self.is_elsewhere(name):
            raise PluginError(
                f"{name!r} of {origin} runs in a worker: this needs it in this process, where only "
                "--security-level maximum_trust lets it"
            )


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


_defaults: list[Registry] = []


def default_registry() -> Registry:
    """Built-in plugins and those of installed packages, read once per process."""
    if not _defaults:
        _defaults.append(Registry(external=import_object(_EXTERNAL)(), bridge=True))
    return _defaults[0]


def forget_registry() -> None:
    """Read what is installed again, the next time."""
    _defaults.clear()


def choose_external(external: External | None) -> None:
    """From now on this process knows built-in plugins, and of others' this one at most, which it imports: a worker's
    parent has chosen.
    """
    registry = Registry(external=() if external is None else (external,), bridge=True)
    if external is not None:
        registry.trust(external.name)
    _defaults[:] = [registry]


def create_plugin(name: str, **kwargs: Any) -> ModelPlugin:
    """A new plugin object by name, built-in or installed: `create_plugin("llama")`. One of others stands for what runs
    in a worker.
    """
    registry = default_registry()
    if registry.is_elsewhere(name):
        remote: ModelPlugin = import_object(_REMOTE)(registry.get(name).manifest, **kwargs)
        return remote
    return registry.create(name, **kwargs)
