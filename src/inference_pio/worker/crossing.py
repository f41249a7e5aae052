"""Errors on their way from a worker: by a name of a closed list, with the words they had."""

from __future__ import annotations

from inference_pio import errors
from inference_pio.errors import InferencePIOError
from inference_pio.worker.frames import ProtocolError
from inference_pio.worker.messages import Failed

_KNOWN = {
    name: found
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, InferencePIOError)
}


def error_of(message: Failed) -> InferencePIOError:
    """
    Raises:
        ProtocolError: there is no error of that name.
    """
    kind = _KNOWN.get(message.error)
    if kind is None:
        raise ProtocolError(f"an error called {message.error!r:.60}, which there is not")
    # Constructors put words together; here they are.
    error = kind.__new__(kind, message.text)
    Exception.__init__(error, message.text)
    return error
