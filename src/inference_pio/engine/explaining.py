"""Why the prefix cache gave as much of a prompt as it did, by what is kept of earlier prompts where that is asked."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from typing import NamedTuple

from inference_pio.cache.tiers import PrefixTier
from inference_pio.engine.sequence import Sequence
from inference_pio.outputs import CacheExplanation
from inference_pio.plugin.media import MediaItem

_MOST_REQUESTS = 256
_MOST_TOKENS = 1_000_000
_MOST_FORGOTTEN = 65_536
_PIECE = 512


class _Known(NamedTuple):
    """A prompt with its answer, which grows; where its images lie and what they are."""

    request_id: str
    token_ids: list[int]
    images: list[tuple[int, int, bytes]]


class PrefixHistory:
    """The last 256 requests, of a million tokens in all, and the last 65,536 blocks that were forgotten."""

    def __init__(self, block_size: int, tier: PrefixTier | None) -> None:
        self._size, self._tier = block_size, tier
        self._known: deque[_Known] = deque(maxlen=_MOST_REQUESTS)
        self._forgotten: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def remember(self, sequence: Sequence) -> None:
        """Compare later prompts with this one and what becomes its answer."""
        request = sequence.request
        images = _images(request.media.items) if request.media is not None else []
        self._known.append(_Known(request.request_id, sequence.token_ids, images))
        while sum(len(known.token_ids) for known in self._known) > _MOST_TOKENS and len(self._known) > 1:
            self._known.popleft()

    def forgotten(self, digest: bytes, request_id: str) -> None:
        """A block was let go of for the sake of a request."""
        self._forgotten[digest] = request_id, monotonic()
        self._forgotten.move_to_end(digest)
        if len(self._forgotten) > _MOST_FORGOTTEN:
            self._forgotten.popitem(last=False)

    def clear(self) -> None:
        """The cache was emptied."""
        self._known.clear()
        self._forgotten.clear()

    def explain(self, sequence: Sequence, parent: bytes, num_found: int) -> CacheExplanation:
        """Of a sequence that was just admitted where prefixes are reused.

        `parent` is the digest behind what it found; `num_found` of its blocks were in memory, perhaps more than it
        uses.
        """
        prompt, cached = sequence.token_ids, sequence.num_computed_tokens
        told = CacheExplanation("whole", len(prompt), cached, self._size, cached)
        if cached // self._size == (len(prompt) - 1) // self._size:
            return told
        common, known = self._nearest(sequence, parent)
        told = replace(told, num_common_tokens=common)
        forgotten = self._forgotten.get(sequence.block_digests[cached // self._size])
        if forgotten is not None:
            by, when = forgotten
            return replace(told, reason="forgotten", other_request=by, seconds_ago=monotonic() - when)
        if num_found * self._size > cached:
            return replace(told, reason="no snapshot", num_common_tokens=max(common, num_found * self._size))
        if not common:
            return replace(told, reason="new")
        if known is not None and common >= cached + self._size:
            return replace(told, reason="not computed", other_request=known.request_id)
        there = _at(known.token_ids, common) if known is not None else None
        return replace(told, reason="diverged", token_id=_at(prompt, common), known_token_id=there)

    def _nearest(self, sequence: Sequence, parent: bytes) -> tuple[int, _Known | None]:
        """(tokens in common, with what): the latest of those that have most; None where none is known."""
        best, nearest = sequence.num_computed_tokens, None
        media = sequence.request.media
        mine = _Known("", sequence.token_ids, _images(media.items) if media is not None else [])
        for known in (*self._stored(mine.token_ids[:best], parent), *self._known):
            common = _common(mine, known)
            if common >= max(1, best):
                best, nearest = common, known
        return best, nearest

    def _stored(self, found: list[int], parent: bytes) -> Iterator[_Known]:
        """What earlier runs have left that goes on where the found part ends."""
        if self._tier is not None:
            for token_ids in self._tier.following(parent):
                yield _Known("", found + token_ids, [])


def _images(items: tuple[MediaItem, ...]) -> list[tuple[int, int, bytes]]:
    return [(item.start, item.length, item.digest) for item in items]


def _at(token_ids: list[int], place: int) -> int | None:
    return token_ids[place] if place < len(token_ids) else None


def _common(one: _Known, other: _Known) -> int:
    """Leading tokens that both have, and stand for the same."""
    most = min(len(one.token_ids), len(other.token_ids))
    place = 0
    while place < most and one.token_ids[place : place + _PIECE] == other.token_ids[place : place + _PIECE]:
        place += _PIECE
    place = min(place, most)
    while place < most and one.token_ids[place] == other.token_ids[place]:
        place += 1
    for mine, theirs in zip(one.images, other.images, strict=False):
        if mine != theirs:
            return min(place, mine[0], theirs[0])
    return place
