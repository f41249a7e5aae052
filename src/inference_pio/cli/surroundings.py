"""Where this program was started: what of its surroundings is wrong or stands for nothing."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator

from inference_pio.cli.text import one_line
from inference_pio.errors import UnavailableError

_PREFIX = "INFERENCE_PIO_"
_VARIABLES = tuple(_PREFIX + name for name in ("HOME", "DEBUG", "OPS", "ISA", "PEERS"))


def check_folder() -> None:
    """
    Raises:
        UnavailableError: the current folder is gone; libraries look for theirs from it, and end the process.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UnavailableError(
            f"the current folder cannot be used: {error.strerror}; start from another one"
        ) from error


def strangers(variables: Iterable[str]) -> Iterator[str]:
    """A line for each variable that looks like one of this program's and is none."""
    for name in sorted(variables):
        if name.startswith(_PREFIX) and name not in _VARIABLES:
            near = difflib.get_close_matches(name, _VARIABLES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_VARIABLES[:-1])}"
            yield one_line(f"nothing reads the variable {name:.80}; {hint}")
