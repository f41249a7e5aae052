"""How a child begins: the interpreter, where it imports from, and what it sees of the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import inference_pio

_SHOWN = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "TZ")
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
    """Where this process imports from: the project first, no relative folder, and not where its program was started or
    lies. A child may read what lies below these, and there that may be anything.
    """
    own = str(Path(inference_pio.__file__).parent.parent)
    without = {own, _programs_folder()}
    return [own, *(path for path in sys.path if os.path.isabs(path) and path not in without)]


def _programs_folder() -> str:
    """What Python put in front of all others: of `python -m` the folder it was started in, of a script the script's."""
    program = sys.modules["__main__"]
    if program.__spec__ is not None:
        return os.getcwd()
    return os.path.dirname(os.path.realpath(getattr(program, "__file__", None) or ""))
