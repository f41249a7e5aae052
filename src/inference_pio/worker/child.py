"""A worker's first steps: it locks itself in, says how, and only then imports what runs a model.

Started by its parent as `python -I -S`, with one descriptor of a socket pair. Nothing above imports more than the
standard library, msgspec and this project's own words: no thread may exist before the lock.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from inference_pio.children.crossing import words_of
from inference_pio.children.line import Line
from inference_pio.errors import InferencePIOError
from inference_pio.given import give, keep
from inference_pio.imports import import_object
from inference_pio.metrics.memory import STATUS
from inference_pio.security.confine import confine
from inference_pio.worker.messages import Boot, Failed, FromParent, FromWorker, Hello

_SERVE = "inference_pio.worker.serving:serve"


def main(descriptor: int) -> None:
    """Until the parent says Close or hangs up.

    Raises:
        ProtocolError: the parent's first word is none.
    """
    line: Line[FromParent, FromWorker] = Line(socket.socket(fileno=descriptor), FromParent)
    boot = line.hear()
    if not isinstance(boot, Boot):
        return
    line.bell = boot.bell
    keep((STATUS,))
    locks = confine(boot.confinement, boot.parent)
    give(boot.files)
    line.say(Hello(locks))
    try:
        serve: Callable[[Line[FromParent, FromWorker]], None] = import_object(_SERVE)
    except InferencePIOError as error:  # a variable says what there is not
        line.say(Failed(*words_of(error)))
        return
    serve(line)
