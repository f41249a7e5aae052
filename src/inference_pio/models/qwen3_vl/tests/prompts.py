"""Prompts with images, for the reference and for a bare model alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.case import Raw, vocab_size
from inference_pio.conformance.numbers import token_ids
from inference_pio.models.qwen3_vl.rotary_embeddings.positions import rope_positions
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.media import MediaItem, MediaRows

Grid = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Prompt:
    """Token ids, and the images among them."""

    token_ids: list[int]
    media: list[MediaItem]

    @property
    def grids(self) -> list[Grid]:
        return [item.grid for item in self.media]

    @property
    def pixels(self) -> Tensor:
        return torch.cat([item.pixels for item in self.media])


def write(raw: Raw, pieces: Sequence[int | Grid], seed: int = 0) -> Prompt:
    """A number stands for that many random tokens of text, a grid for an image of random pixels."""
    vision, image = raw["vision_config"], raw["image_token_id"]
    values = 3 * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    media = []
    for number, piece in enumerate(pieces):
        if isinstance(piece, int):
            words = token_ids(piece, vocab_size(raw), seed + number)
            ids += [word if word != image else image + 1 for word in words]
            continue
        length = prod(piece) // vision["spatial_merge_size"] ** 2
        pixels = torch.rand(prod(piece), values, generator=generator) * 2 - 1
        media.append(MediaItem(len(ids), length, b"", pixels, piece))
        ids += [image] * length
    return Prompt(ids, media)


def with_images(
    batch: ForwardBatch, prompts: Sequence[Prompt], spans: Sequence[range], bare: BareModel
) -> ForwardBatch:
    """The step's batch as an engine would make it: of each prompt the tokens of its span, behind its end answers.

    An image that lies across the step's border gives the rows that are in the step.
    """
    merge = bare.config.vision.spatial_merge_size
    rows, features, positions = [], [], []
    starts = accumulate([0, *(len(span) for span in spans)])
    for prompt, span, first in zip(prompts, spans, starts, strict=False):
        known, delta = rope_positions(prompt.token_ids, prompt.media, merge)
        later = torch.arange(known.shape[1], max(span.stop, known.shape[1])) + delta
        positions.append(torch.cat([known, later.expand(3, -1)], dim=1)[:, span.start : span.stop])
        for item in prompt.media:
            inside = range(max(item.start, span.start), min(item.start + item.length, span.stop))
            if inside:
                made = bare.model.encode_media(item.pixels, [item.grid])
                features.append(made[inside.start - item.start : inside.stop - item.start])
                rows += [first + place - span.start for place in inside]
    media = MediaRows(torch.tensor(rows), torch.cat(features)) if rows else None
    return replace(batch, media=media, rope_positions=torch.cat(positions, dim=1))


def run(
    bare: BareModel, prompts: Sequence[Prompt], pieces: Sequence[tuple[int, Sequence[int]]]
) -> list[Tensor]:
    """One step of pieces (sequence number, its next tokens), sequence n being of prompts[n]: logits of every token."""
    starts = [bare._lengths[number] for number, _ in pieces]
    spans = [range(first, first + len(ids)) for first, (_, ids) in zip(starts, pieces, strict=True)]
    with torch.inference_mode():
        batch = with_images(bare.batch(pieces), [prompts[number] for number, _ in pieces], spans, bare)
        logits: Tensor = bare.model(batch, bare.caches)
    return list(logits.split([len(ids) for _, ids in pieces]))


def in_pieces(bare: BareModel, prompt: Prompt, cuts: Sequence[int], more: Sequence[int] = ()) -> Tensor:
    """Logits of a prompt that is cut at these places, and of tokens that follow it one by one."""
    bare.restart()
    borders = [0, *cuts, len(prompt.token_ids)]
    parts = [prompt.token_ids[a:b] for a, b in pairwise(borders)]
    steps = [*parts, *([one] for one in more)]
    return torch.cat([run(bare, [prompt], [(0, step)])[0] for step in steps])
