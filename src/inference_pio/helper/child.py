"""The helper's own side: one job after the other, each within its processor time."""

from __future__ import annotations

import math
import resource
import socket
import time

from inference_pio.children.crossing import words_of
from inference_pio.children.line import Line
from inference_pio.errors import InferencePIOError
from inference_pio.helper.jobs import (
    MOST_BYTES,
    Begin,
    Decode,
    FromHelper,
    Pixels,
    Ready,
    Refused,
    Render,
    Rendered,
    ToHelper,
)
from inference_pio.imports import import_object
from inference_pio.security.confine import confine

_RENDER = "inference_pio.text.rendering:render"
_DECODE = "inference_pio.multimodal.decoding:rgb"


def main(descriptor: int) -> None:
    """Until the parent hangs up."""
    line: Line[ToHelper, FromHelper] = Line(socket.socket(fileno=descriptor), ToHelper, MOST_BYTES)
    begin = line.hear()
    if not isinstance(begin, Begin):
        return
    confine(begin.confinement, begin.parent)
    line.say(Ready())
    while (job := line.hear()) is not None:
        _allow(begin.cpu_seconds)
        line.say(_done(job))


def _allow(seconds: int) -> None:
    """So much more processor time; beyond it the kernel ends this process."""
    resource.setrlimit(
        resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, resource.RLIM_INFINITY)
    )


def _done(job: ToHelper) -> FromHelper:
    try:
        if isinstance(job, Render):
            return Rendered(import_object(_RENDER)(job.source, job.values, job.path))
        if isinstance(job, Decode):
            return Pixels(*import_object(_DECODE)(job.data, job.where, job.format, job.width, job.height))
    except InferencePIOError as error:
        return Refused(*words_of(error))
    return Refused("UsageError", "that is no job")
