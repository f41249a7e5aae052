"""Requests that ended a worker by themselves: the same again is refused for a while."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import msgspec

from inference_pio.errors import GenerationError
from inference_pio.worker.messages import Generate

REFUSED_SECONDS = 600.0


@dataclass
class Poison:
    """`now` is of a clock that never goes back. Few are known: each has cost three workers."""

    _until: dict[bytes, float] = field(default_factory=dict)

    def found(self, asked: Generate, now: float) -> None:
        self._until = {digest: until for digest, until in self._until.items() if until > now}
        self._until[_digest(asked)] = now + REFUSED_SECONDS

    def refusal(self, asked: Generate, now: float) -> GenerationError | None:
        """Why it is not served; None: it may be."""
        left = self._until.get(_digest(asked), now) - now
        if left <= 0:
            return None
        return GenerationError(
            f"this prompt with these parameters has ended its worker, alone at last: it is refused for another "
            f"{math.ceil(left)} s; ask otherwise, or load the model again"
        )


def _digest(asked: Generate) -> bytes:
    """Of prompt and parameters. Not of the seed: with another one, or none, it is the same prompt that comes again."""
    params = {name: value for name, value in sorted(asked.params.items()) if name != "seed"}
    text = asked.text if asked.token_ids is None else None
    same = msgspec.structs.replace(asked, request=0, params=params, text=text, done=[])
    return hashlib.sha256(msgspec.msgpack.encode(same)).digest()
