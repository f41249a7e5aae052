"""Errors on their way from a child: by a name of a closed list, with the words they had."""

from __future__ import annotations

from inference_pio import errors
from inference_pio.children.frames import ProtocolError
from inference_pio.errors import InferencePIOError, one_line

_MOST_TEXT = 2000
_KNOWN = {
    name: found
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, InferencePIOError)
}


def words_of(error: InferencePIOError) -> tuple[str, str]:
    """Name and text, as they are sent."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KNOWN), str(error)[
        :_MOST_TEXT
    ]


def error_of(name: str, text: str) -> InferencePIOError:
    """
    Raises:
        ProtocolError: there is no error of that name.
    """
    kind = _KNOWN.get(name)
    if kind is None:
        raise ProtocolError(f"an error called {name!r:.60}, which there is not")
    # Constructors put words together; here they are. Whoever sent them may be a stranger.
    words = one_line(text[:_MOST_TEXT])[:_MOST_TEXT]
    error = kind.__new__(kind, words)
    Exception.__init__(error, words)
    return error
