"""A SentencePiece vocabulary with scores, as merges in order.

SentencePiece's byte-pair model (Kudo & Richardson 2018) joins, again and again, the two neighbours whose
joint entry has the highest score, the leftmost of equals. The merge list below makes a rank-based byte-pair
encoder do the same: every way to cut an entry into two entries is a merge, and merges are ordered by the
score of what they make.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def merges_from_scores(
    vocabulary: Mapping[str, int], scored: Iterable[tuple[str, float]]
) -> list[tuple[str, str]]:
    """Merges, first to be applied first.

    Args:
        vocabulary: every entry.
        scored: entries that merging may make, with their scores; bytes and special tokens are left out of it.

    Two merges of equal score can only differ in the result where they compete for the same text:

    * Entries of equal score: the longer first. The equals of real vocabularies are runs of spaces, which
      grow from the left, one by one; the growing one must win over a new pair.
    * Cuts of one entry t = XY = YZ in a text XYZ: the leftmost is (X, Y), so it must come first. |X| = |Z|
      = p and |Y| = q makes Y a border (prefix and suffix) of t. Of the cuts at p and at q the one is ahead
      whose overlap can occur at all; if both can (t is a run), neither order is wrong for texts merged from
      the left.
    """
    ordered = sorted(scored, key=lambda entry: (-entry[1], -len(entry[0]), vocabulary[entry[0]]))
    merges: list[tuple[str, str]] = []
    for piece, _ in ordered:
        cuts = [
            cut for cut in range(1, len(piece)) if piece[:cut] in vocabulary and piece[cut:] in vocabulary
        ]
        cuts.sort(key=lambda cut: not _first_of_pair(piece, cut))
        merges += [(piece[:cut], piece[cut:]) for cut in cuts]
    return merges


def _first_of_pair(piece: str, cut: int) -> bool:
    mine, other = _is_border(piece, len(piece) - cut), _is_border(piece, cut)
    return mine > other or (mine == other and 2 * cut > len(piece))


def _is_border(piece: str, length: int) -> bool:
    return piece[:length] == piece[len(piece) - length :]
