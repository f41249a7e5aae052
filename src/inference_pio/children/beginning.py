"""How a child begins: the interpreter, where it imports from, and what it sees of the environment."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import inference_pio

# The last two say how a model is computed, wherever that is.
_SHOWN = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "TZ", "INFERENCE_PIO_OPS", "INFERENCE_PIO_ISA")
_BEGIN = "import sys; sys.path[:0] = {paths!r}; from {module} import {name}; {name}({descriptor})"


def command(target: str, descriptor: int) -> list[str]:
    """`python -I -S`: no environment variable, user folder, `sitecustomize` or `.pth` file has a say in what it
    imports.

    Args:
        target: "package.module:function", which is called with the descriptor.
    """
    module, _, name = target.partition(":")
    code = _BEGIN.format(paths=import_paths(), module=module, name=name, descriptor=descriptor)
    return [sys.executable, "-I", "-S", "-c", code]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The few variables that a child is shown, and `more`: what else is here may be a secret."""
    return {**{name: os.environ[name] for name in _SHOWN if name in os.environ}, **more}


def import_paths() -> list[str]:
    """Where a child imports from, as this process does: the project first, and no folder that is on the path only
    because this process was started there. A worker may read all of them, and that one may be anybody's home.
    """
    own = str(Path(inference_pio.__file__).parent.parent)
    left_out = {own, *_started_from()}
    return [own, *(path for path in sys.path if os.path.isabs(path) and path not in left_out)]


def _started_from() -> set[str]:
    """The folder of the script, with `python -m` the current one; not where they are named as places of modules."""
    program = sys.modules["__main__"]
    found = set()
    if program.__spec__ is not None:
        with suppress(OSError):  # it may be gone
            found.add(os.getcwd())
    elif script := getattr(program, "__file__", None):
        found.add(os.path.dirname(os.path.realpath(script)))
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return found - {*named, *site.getsitepackages(), site.getusersitepackages()}
