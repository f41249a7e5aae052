"""What Transformers raises about a configuration it was given, in one line of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from inference_pio.errors import InferencePIOError, UnsupportedArchitecture


def refuse(path: str, what: str, *, where: str = "", hint: str = "") -> UnsupportedArchitecture:
    """The error for a model that the bridge cannot run right; `where` names the key of config.json."""
    return UnsupportedArchitecture(
        path, f"the bridge to Transformers cannot run it: {what}", where=where, hint=hint
    )


@contextmanager
def transformers_at_work(path: str, doing: str) -> Iterator[None]:
    """Around calls into Transformers, which raises anything at all where a configuration does not fit its classes.

    Its own log keeps quiet meanwhile, except for errors: what matters of a model is told in one line of ours.

    Raises:
        UnsupportedArchitecture: with what Transformers said and what it was doing.
    """
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except InferencePIOError:
        raise
    except Exception as error:
        said = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
        raise refuse(path, f"Transformers fails at {doing}: {type(error).__name__}: {said[:300]}") from error
    finally:
        logger.setLevel(before)
