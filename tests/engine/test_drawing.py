"""How the rows of a step are cut: whole sequences, in order, no more rows than a piece may have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from inference_pio.engine.drawing import pieces


def _sequences(drafts: list[int]) -> tuple[list[Any], dict[Any, list[int]]]:
    sequences: list[Any] = [_Named(name=str(number)) for number in range(len(drafts))]
    return sequences, {one: [7] * count for one, count in zip(sequences, drafts, strict=True) if count}


class _Named(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.mark.parametrize(
    ("drafts", "most", "expected"),
    [
        ([0, 0, 0, 0, 0], 2, [(2, 0, 2), (2, 2, 4), (1, 4, 5)]),
        ([1, 2, 0, 0], 3, [(1, 0, 2), (1, 2, 5), (2, 5, 7)]),
        ([0, 5, 0], 3, [(1, 0, 1), (1, 1, 7), (1, 7, 8)]),  # a sequence is never cut
        ([0, 0], 8, [(2, 0, 2)]),
        ([], 8, []),
    ],
)
def test_pieces(drafts: list[int], most: int, expected: list[tuple[int, int, int]]) -> None:
    sequences, guessed = _sequences(drafts)
    found = list(pieces(sequences, guessed, most))
    assert [(len(some), rows.start, rows.stop) for some, rows in found] == expected
    assert [one for some, _ in found for one in some] == sequences


def test_all_at_once() -> None:
    sequences, guessed = _sequences([0, 3, 0])
    assert list(pieces(sequences, guessed, None)) == [(sequences, slice(None))]
