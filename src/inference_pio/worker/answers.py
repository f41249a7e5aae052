"""What a worker may answer to each question: a stranger says it, so that it is looked at before anybody uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from inference_pio.children.frames import ProtocolError
from inference_pio.metrics.performance import PerformanceMetrics
from inference_pio.worker.messages import Fitting, Plain, Taken
from inference_pio.worker.pictures import without_images

_MOST_SHOWN = 200


class Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conversation for the template `source` with its `values`; `path` is the model's, `images` are the places of
    those that are in it, in order.
    """

    source: str
    values: dict[str, Any]
    path: str
    images: list[str]


class Encoded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str | None
    token_ids: list[int]


class GivenBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What emptying the prefix cache gave back, in bytes of the process, beside the plan."""

    process_bytes_before: int
    process_bytes_after: int
    applied: list[Taken]
    before: dict[str, Plain]
    after: dict[str, Plain]
    fits: bool


_FIGURES = dict[str, int | float]
_SHOWN_AS_DATA = (GivenBack, Fitting)
ANSWERS: Mapping[str, Any] = {
    "tokenize": list[int],
    "detokenize": str,
    "write": Written,
    "encode": Encoded,
    "memory": _FIGURES,
    "compute": _FIGURES,
    "disk": _FIGURES,
    "performance": PerformanceMetrics,
    "techniques": list[dict[str, Any]],
    "optimize": GivenBack,
    "fit": Fitting,
}


def checked_answer(about: str, given: Mapping[str, Any], value: object, vocab_size: int) -> object:
    """An answer as its type.

    Args:
        given: with the question.
        vocab_size: 0: no model is loaded so far.

    Raises:
        ProtocolError: it is none to that question.
    """
    try:
        told: object = msgspec.convert(value, ANSWERS[about])
    except msgspec.ValidationError as error:
        raise ProtocolError(f"no answer to {about!r}: {str(error)[:_MOST_SHOWN]}") from error
    if about == "tokenize" or isinstance(told, Encoded):
        _check_ids(told.token_ids if isinstance(told, Encoded) else told, vocab_size)
    if isinstance(told, Written):
        _check_places(told.images, given["messages"])
    return msgspec.to_builtins(told) if isinstance(told, _SHOWN_AS_DATA) else told


def _check_ids(token_ids: Any, vocab_size: int) -> None:
    if token_ids and (min(token_ids) < 0 or (vocab_size and max(token_ids) >= vocab_size)):
        raise ProtocolError(f"a token id that is not in the vocabulary of {vocab_size}")


def _check_places(told: Sequence[str], messages: Sequence[Any]) -> None:
    """What has no image any more has its places still."""
    there = without_images(messages)[1]
    if len(set(told)) != len(told) or not there.keys() >= set(told):
        raise ProtocolError("images that the conversation does not have")
