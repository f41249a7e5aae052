"""Where this program was started: what of its surroundings is wrong or stands for nothing."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator

from inference_pio.cli.text import one_line
from inference_pio.errors import UnavailableError

_PREFIX = "INFERENCE_PIO_"
# The last two are for workers and for the benchmarks' scripts.
_NAMES = ("HOME", "DEBUG", "OPS", "ISA", "WORKER_USER", "SCRATCH", "PEERS")


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
        own = name.removeprefix(_PREFIX)
        if own != name and own not in _NAMES:
            near = difflib.get_close_matches(own, _NAMES, n=1)
            known = ", ".join(_PREFIX + each for each in _NAMES[:-2])
            hint = f"did you mean {_PREFIX}{near[0]}?" if near else f"there are {known}"
            yield one_line(f"nothing reads the variable {name:.80}; {hint}")
