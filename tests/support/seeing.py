"""A model that sees, small enough to know its answers without an engine.

Its next token is a function of all that the cache holds: of each position the token or, where an image lies, its
feature, and the position on three axes. An image's token is one pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inference_pio.cache.specs import PagedKV
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.engine.media import MediaSide
from inference_pio.multimodal.prompt import fill_placeholders
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.plugin.media import Grid, ImageSource, MediaItem, PromptMedia

VOCAB = 50
PLACEHOLDER = 40
UNSEEN = 251  # an image with a pixel of this red cannot be encoded


class PixelProcessor:
    placeholder = PLACEHOLDER

    def tokens(self, grid: Grid) -> int:
        return grid[0] * grid[1] * grid[2]

    def prepare(self, rgb: Tensor) -> tuple[Tensor, Grid]:
        height, width, _ = rgb.shape
        return rgb.reshape(-1, 3).float(), (1, height, width)

    def rope_positions(self, token_ids: Sequence[int], media: Sequence[MediaItem]) -> tuple[Tensor, int]:
        """An image's tokens have one time and their row and column; what follows comes behind the larger of both."""
        columns: list[tuple[int, int, int]] = []
        starts = {item.start: item for item in media}
        position = at = 0
        while at < len(token_ids):
            if at in starts:
                _, height, width = starts[at].grid
                columns += [
                    (position, position + y, position + x) for y in range(height) for x in range(width)
                ]
                position += max(height, width)
                at += height * width
            else:
                columns.append((position, position, position))
                position, at = position + 1, at + 1
        return torch.tensor(columns).T.contiguous(), position - len(token_ids)

    def encoder_bytes(self, max_tokens: int, itemsize: int) -> int:
        return max_tokens * itemsize


class SeeingModel(nn.Module):
    """`encoded` lists the grids of all images that were ever encoded."""

    specs = (PagedKV(num_kv_heads=1, head_dim=4, dtype=torch.float32),)
    policy = PrefixPolicy(seed=("seeing",))

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[Grid] = []
        self.steps: list[tuple[int, int]] = []  # tokens, and rows that images fill

    def encode_media(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        self.encoded += grids
        if (pixels[:, 0] == UNSEEN).any():
            raise RuntimeError("this pixel hurts")
        return _feature(pixels)[:, None]

    def forward(self, batch: Any, caches: Any) -> Tensor:
        (cache,) = caches
        values = batch.token_ids.float()
        if batch.media is not None:
            values[batch.media.rows] = batch.media.features[:, 0]
        self.steps.append((len(values), 0 if batch.media is None else len(batch.media.rows)))
        size = cache.k.shape[2]
        slots = batch.slot_mapping
        entries = torch.cat((values[None], batch.rope_positions.expand(3, -1).float())).T
        cache.k[slots // size, 0, slots % size] = entries
        start = batch.query_start.tolist()
        histories = {}
        for s in range(len(start) - 1):
            length = int(batch.seq_lens[s])
            held = cache.k[batch.block_tables[s].long(), 0].flatten(0, 1)[:length].long().tolist()
            for row in range(start[s], start[s + 1]):
                histories[row] = held[: length - (start[s + 1] - 1 - row)]
        logits = torch.zeros(len(batch.last_token), VOCAB)
        for i, row in enumerate(batch.last_token.tolist()):
            logits[i, next_token(histories[row])] = 1
        return logits


def _feature(pixels: Tensor) -> Tensor:
    return 100 + pixels @ torch.tensor([1.0, 7.0, 49.0])


def next_token(history: list[list[int]]) -> int:
    digest = hashlib.blake2b(repr(history).encode()).digest()
    return 1 + int.from_bytes(digest[:4], "big") % (PLACEHOLDER - 1)


def answer_of(token_ids: list[int], media: PromptMedia | None, num_tokens: int) -> list[int]:
    """The definition, without an engine."""
    axes = media.rope_positions.T.tolist() if media else [[i] * 3 for i in range(len(token_ids))]
    history = [[token_id, *axis] for token_id, axis in zip(token_ids, axes, strict=True)]
    for item in media.items if media else ():
        for i, value in enumerate(_feature(item.pixels).tolist()):
            history[item.start + i][0] = int(value)
    delta, answer = (media.rope_delta if media else 0), []
    for _ in range(num_tokens):
        answer.append(next_token(history))
        history.append([answer[-1]] + [len(history) + delta] * 3)
    return answer


def picture(height: int, width: int, seed: int) -> bytes:
    """A PNG file."""
    from PIL import Image

    from support.images import saved

    pixels = torch.randint(0, 250, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return saved(Image.fromarray(pixels.to(torch.uint8).numpy()), "PNG")


def prompt_of(*parts: int | bytes) -> tuple[list[int], PromptMedia | None]:
    """Token ids and images in the order in which they are given."""
    ids = [PLACEHOLDER if isinstance(part, bytes) else part for part in parts]
    images = [ImageSource("image", part) for part in parts if isinstance(part, bytes)]
    return fill_placeholders(ids, images, PixelProcessor(), max_tokens=1000)


def make_engine(max_feature_bytes: int = 1 << 20, **overrides: Any) -> tuple[EngineCore, SeeingModel]:
    sizes = {
        "max_model_len": 128,
        "block_size": 4,
        "num_blocks": 128,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 32,
    }
    config = EngineConfig(**{**sizes, **overrides})
    model, device = SeeingModel(), torch.device("cpu")
    core = EngineCore(
        model,
        model.specs,
        config,
        vocab_size=VOCAB,
        eos_token_ids=[0],
        prefix_policy=model.policy,
        device=device,
        media=MediaSide(model, device, max_feature_bytes),
    )
    return core, model
