"""What a plugin says about itself before any of its code is imported. Importable without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inference_pio.errors import PluginError

API_VERSION = 1


@dataclass(frozen=True)
class Capabilities:
    """What the plugin's architecture can do. Read by the registry, `plugins` and the engine's planner."""

    chat: bool = True
    tensor_parallel: bool = False
    recurrent_state: bool = False


@dataclass(frozen=True)
class Manifest:
    """One architecture.

    name               the directory's name: `model_type` of config.json
    api_version        version of the plugin contract it was written for
    architectures      what config.json's `architectures` may say
    gguf_architectures what a GGUF file's `general.architecture` may say
    plugin             "package.module:Class"
    modalities         what it reads: ("text",)
    description        one line for people
    fallback           not empty: it takes what no other plugin claims, and this says in one line what that costs
    """

    name: str
    api_version: int
    architectures: tuple[str, ...]
    plugin: str
    description: str
    gguf_architectures: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("text",)
    fallback: str = ""
    capabilities: Capabilities = Capabilities()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,63}", self.name):
            raise PluginError(f"plugin name {self.name!r}: use 1 to 64 of a-z, 0-9 and _")
        if self.api_version != API_VERSION:
            raise PluginError(
                f"plugin {self.name!r} was written for contract version {self.api_version}, this is version "
                f"{API_VERSION}; install a release of the plugin made for it"
            )
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.plugin):
            raise PluginError(
                f"plugin {self.name!r}: {self.plugin!r} is not of the form 'package.module:Class'"
            )
