"""The bridge against Transformers' own attention, on the weights that were loaded and for a few tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from inference_pio.bridge.attention import NAME
from inference_pio.bridge.foreign import refuse, transformers_at_work
from inference_pio.cache.specs import CacheSpec
from inference_pio.plugin.batch import ForwardBatch

# Two sequences, each in pieces: prefill together, a chunk beside a decoding one, decoding together.
_PIECES = ((6, 4), (5, 1), (1, 1), (1, 3))
_BLOCK = 4
_BLOCKS = ((5, 1, 3, 6), (2, 7, 4))  # of each sequence; block 0 is nobody's
# Largest difference of a row's logits, as a share of the largest logit: rounding in either dtype. A mixture may round
# a token to another expert in 16 bits, so that there a quarter of the rows may differ by more. Whatever the first step
# leaves out of the cache is missing in half of them.
_MOST_FLOAT32, _MOST_SHORT = 2e-3, 0.06
_SHARE_SHORT = 0.75


@torch.inference_mode()
def check_against_eager(
    model: nn.Module, specs: Sequence[CacheSpec], device: torch.device, dtype: torch.dtype, path: str
) -> None:
    """Run the same tokens through `model` in steps and through its network whole.

    Raises:
        UnsupportedArchitecture: the logits differ by more than rounding, or one of both ways fails.
    """
    network: Any = model.network
    generator = torch.Generator().manual_seed(1)
    lengths = [sum(piece) for piece in zip(*_PIECES, strict=True)]
    texts = [
        torch.randint(network.config.vocab_size, (length,), generator=generator).to(device)
        for length in lengths
    ]
    with transformers_at_work(path, "the check of its logits"):
        with _eager(network):
            expected = [_whole(network, text) for text in texts]
        caches = [spec.allocate(1 + max(map(max, _BLOCKS)), _BLOCK, 0, device) for spec in specs]
        got = _stepwise(model, caches, texts, device)
    errors = torch.cat(
        [_errors(one, other) for one, other in zip(got, expected, strict=True)],
    )
    exact = dtype == torch.float32
    found, most = (errors.max(), _MOST_FLOAT32) if exact else (errors.quantile(_SHARE_SHORT), _MOST_SHORT)
    if not found <= most:  # NaN is no match either
        raise refuse(
            path,
            f"its logits differ from those of Transformers' own attention by {float(found):.1e} of the largest, more "
            f"than {most:g}: something else than attention connects its tokens, or the weights are not finite",
        )


def _errors(got: Tensor, expected: Tensor) -> Tensor:
    """[rows]"""
    return (got - expected).abs().amax(dim=1) / expected.abs().max()


def _whole(network: Any, text: Tensor) -> Tensor:
    ids = text[None]
    positions = torch.arange(len(text), device=text.device)[None]
    logits: Tensor = network(
        input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False
    ).logits[0]
    return logits.float()


def _stepwise(
    model: nn.Module, caches: Sequence[Any], texts: Sequence[Tensor], device: torch.device
) -> list[Tensor]:
    parts: list[list[Tensor]] = [[] for _ in texts]
    ends = [[0, *accumulate(pieces)] for pieces in zip(*_PIECES, strict=True)]
    for step in range(len(_PIECES)):
        spans = [(end[step], end[step + 1]) for end in ends]
        logits = model(_batch(texts, spans, device), caches)
        for part, rows in zip(parts, logits.split([stop - start for start, stop in spans]), strict=True):
            part.append(rows)
    return [torch.cat(part) for part in parts]


def _batch(texts: Sequence[Tensor], spans: Sequence[tuple[int, int]], device: torch.device) -> ForwardBatch:
    """The step that computes these positions of each text, with logits for every row."""
    positions = torch.cat([torch.arange(start, stop) for start, stop in spans])
    slots = [
        blocks[at // _BLOCK] * _BLOCK + at % _BLOCK
        for blocks, (start, stop) in zip(_BLOCKS, spans, strict=True)
        for at in range(start, stop)
    ]
    starts = [0, *accumulate(stop - start for start, stop in spans)]
    ends = [stop for _, stop in spans]
    width = max(map(len, _BLOCKS))
    tables = [[*blocks, *[0] * (width - len(blocks))] for blocks in _BLOCKS]

    def short(values: Sequence[Any]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    return ForwardBatch(
        token_ids=torch.cat([text[start:stop] for text, (start, stop) in zip(texts, spans, strict=True)]),
        positions=positions.to(device),
        query_start=short(starts),
        seq_lens=short(ends),
        block_tables=short(tables),
        slot_mapping=torch.tensor(slots, device=device),
        state_slots=None,
        last_token=torch.arange(len(positions), device=device),
        max_query_len=max(stop - start for start, stop in pairwise(starts)),
        max_seq_len=max(ends),
    )


@contextmanager
def _eager(network: Any) -> Iterator[None]:
    """The network with attention and experts as its own file writes them."""
    config, experts = network.config, network.config._experts_implementation
    config._attn_implementation = config._experts_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation, config._experts_implementation = NAME, experts
