"""The names of a new plugin, in every form in which code uses them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec

from inference_pio.errors import UsageError

_PATTERN = r"[a-z][a-z0-9_]{0,63}"


@dataclass(frozen=True)
class Names:
    """Forms of one name.

    plugin        "my_model": what the registry, `model_type` and the entry point say
    package       "inference_pio_my_model": what Python imports
    distribution  "inference-pio-my-model": what pip installs
    stem          "MyModel": how its classes' names begin
    """

    plugin: str
    package: str
    distribution: str
    stem: str

    @classmethod
    def of(cls, plugin: str) -> Names:
        package = f"inference_pio_{plugin}"
        return cls(plugin, package, package.replace("_", "-"), stem_of(plugin))

    @classmethod
    def new(cls, plugin: str, taken: Collection[str]) -> Names:
        """The forms of a name that is still free.

        Args:
            taken: names of the plugins that are there.

        Raises:
            UsageError: it is not a name, a word of Python, or taken.
        """
        if not re.fullmatch(_PATTERN, plugin):
            raise UsageError(
                f"{plugin!r} cannot be a plugin's name: use 1 to 64 of a-z, 0-9 and _, a letter first"
            )
        if keyword.iskeyword(plugin) or keyword.issoftkeyword(plugin):
            raise UsageError(f"{plugin!r} cannot be a plugin's name: it is a word of Python")
        if plugin in taken:
            raise UsageError(f"there is a plugin called {plugin!r}: choose another name")
        names = cls.of(plugin)
        if find_spec(names.package) is not None:
            raise UsageError(f"a package {names.package} is installed: remove it, or choose another name")
        return names


def stem_of(plugin: str) -> str:
    """How the classes of a plugin are called: "my_model" gives "MyModel"."""
    return "".join(part.capitalize() for part in plugin.split("_"))
