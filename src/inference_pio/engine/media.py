"""Images in the engine: their features when a step reaches them, positions on three axes, their part of a prefix.

The encoder runs when the first token of an image is computed. Its features stay while a part of the image is still to
be computed, and beyond that as long as there is room, so that a preempted request, a second answer and a later turn
do not run it again. None of this is bookkeeping that a request has to undo: what is not in use is simply the first
to go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inference_pio.engine.sequence import Drafts, Sequence
from inference_pio.errors import PluginError
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.media import EncodesMedia, MediaItem, MediaRows, PromptMedia

FEATURE_CACHE_BYTES = 256 * 2**20


class MediaSide:
    """What a model that sees gets beside token ids.

    Args:
        model: has `encode_media`.
        max_bytes: of features that no request is in the middle of.

    Raises:
        PluginError: the model has no `encode_media`.
    """

    def __init__(self, model: nn.Module, device: torch.device, max_bytes: int = FEATURE_CACHE_BYTES) -> None:
        if not isinstance(model, EncodesMedia):
            raise PluginError("the plugin has a media_processor, and its model no encode_media")
        self._model, self._device, self._max_bytes = model, device, max_bytes
        self._features: OrderedDict[bytes, Tensor] = OrderedDict()  # last used last
        self._needed: dict[Sequence, set[bytes]] = {}

    @property
    def num_bytes(self) -> int:
        """Of the features that are kept."""
        return sum(features.nbytes for features in self._features.values())

    def encode(self, sequence: Sequence, num_tokens: int) -> None:
        """Have the features of every image that the sequence's next tokens reach.

        Raises:
            PluginError: the encoder gives another number of rows; and whatever it raises itself.
        """
        reached = [item for item, _, _ in _reached(sequence, num_tokens)]
        if reached:
            self._needed[sequence] = {item.digest for item in reached}
        for item in reached:
            if item.digest in self._features:
                self._features.move_to_end(item.digest)
                continue
            with torch.inference_mode():
                features = self._model.encode_media(item.pixels.to(self._device), [item.grid])
            if features.ndim != 2 or len(features) != item.length:
                raise PluginError(
                    f"encode_media gave features of shape {tuple(features.shape)} for an image of {item.length} tokens"
                )
            self._features[item.digest] = features

    def extend(self, batch: ForwardBatch, scheduled: dict[Sequence, int], drafts: Drafts) -> ForwardBatch:
        """The step with its images and positions; `encode` has seen every sequence of it."""
        axes = np.empty((3, len(batch.token_ids)), dtype=np.int64)
        rows: list[NDArray[np.int64]] = []
        features: list[Tensor] = []
        first = 0
        for sequence, num_tokens in scheduled.items():
            start = sequence.num_computed_tokens
            self._needed.pop(sequence, None)
            for item, low, high in _reached(sequence, num_tokens):
                rows.append(np.arange(first + low - start, first + high - start))
                features.append(self._features[item.digest][low - item.start : high - item.start])
                if high < item.start + item.length:
                    self._needed[sequence] = {item.digest}  # by the next step
            end = start + num_tokens + len(drafts.get(sequence, ()))
            axes[:, first : first + end - start] = _axes(sequence.request.media, start, end)
            first += end - start
        media = MediaRows(self._tensor(np.concatenate(rows)), torch.cat(features)) if rows else None
        if rows:
            self.trim()
        if (axes == axes[0]).all():  # always so when decoding, and such a step can be replayed
            axes = axes[:1]
        return replace(batch, media=media, rope_positions=self._tensor(axes))

    def trim(self) -> None:
        """Let go of features over the limit, those used longest ago first; none that a running request needs next."""
        self._needed = {s: digests for s, digests in self._needed.items() if s.slot is not None}
        needed, kept = set().union(*self._needed.values()), self.num_bytes
        for digest in [digest for digest in self._features if digest not in needed]:
            if kept <= self._max_bytes:
                return
            kept -= self._features.pop(digest).nbytes

    def clear(self) -> None:
        """Forget all features; those that are needed are made again."""
        self._features.clear()

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


def prefix_part(media: PromptMedia | None, start: int, end: int) -> bytes:
    """What images add to the digest of the block of positions [start, end): those that reach into it, in order.

    Placeholders of all images are one token id, so the ids alone would let one image's keys and values pass for
    another's. Where each begins follows from the ids, and from the digests' covering how an image was cut.
    """
    if media is None:
        return b""
    return b"".join(
        item.digest for item in media.items if item.start < end and item.start + item.length > start
    )


def _reached(sequence: Sequence, num_tokens: int) -> Iterator[tuple[MediaItem, int, int]]:
    """Images among the next tokens, and the positions [low, high) of theirs that are."""
    media = sequence.request.media
    if media is None:
        return
    start = sequence.num_computed_tokens
    for item in media.items:
        low, high = max(start, item.start), min(start + num_tokens, item.start + item.length)
        if low < high:
            yield item, low, high


def _axes(media: PromptMedia | None, start: int, end: int) -> NDArray[np.int64]:
    """[3 or 1, end - start]: positions of a sequence's tokens in time, height and width."""
    plain = np.arange(start, end)[None]
    if media is None:
        return plain
    known: NDArray[np.int64] = media.rope_positions[:, start:end].numpy()
    if known.shape[1] == end - start:
        return known
    return np.concatenate(
        (known, np.repeat(plain[:, known.shape[1] :] + media.rope_delta, 3, axis=0)), axis=1
    )
