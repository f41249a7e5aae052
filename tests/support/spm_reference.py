"""SentencePiece's byte-pair merging as its paper describes it, step by step: slow, and plainly right."""

from __future__ import annotations

from collections.abc import Mapping

SPACE = "\u2581"


def encode(text: str, scores: Mapping[str, float], ids: Mapping[str, int]) -> list[int]:
    """Ids of `text`; `scores` holds the entries that merging may make."""
    symbols = list(SPACE + text.replace(" ", SPACE)) if text else []
    while True:
        best = None
        for index in range(len(symbols) - 1):
            joined = symbols[index] + symbols[index + 1]
            if joined in scores and (
                best is None or scores[joined] > scores[symbols[best] + symbols[best + 1]]
            ):
                best = index
        if best is None:
            break
        symbols[best : best + 2] = [symbols[best] + symbols[best + 1]]
    result: list[int] = []
    for symbol in symbols:
        if symbol in ids:
            result.append(ids[symbol])
        else:
            result += [ids[f"<0x{byte:02X}>"] for byte in symbol.encode("utf-8")]
    return result
