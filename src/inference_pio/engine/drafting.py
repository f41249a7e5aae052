"""What a sequence will say next if it goes on repeating what it said before."""

from __future__ import annotations

LONGEST_MATCH = 24
# Earlier places that are compared when the text leaves the one it followed.
_CANDIDATES = 16
# A token id takes this many bits of an n-gram's key.
_BITS = 32


class SuffixMatcher:
    """Follows the earlier place in a sequence that its end repeats: prompt lookup by the longest suffix.

    The idea is prompt lookup decoding (Saxena 2023) with the longest match in place of a fixed n-gram, as in
    SuffixDecoding (Oliaro et al. 2024). Every 2-gram and 3-gram leads to the place behind its latest occurrence, and
    the places behind equal 3-grams are chained, so that a token costs a few dictionary operations however long the
    sequence is. While the text goes on like the place it follows, nothing is searched at all: no match can be longer
    than the one that has just grown by a token.

    `length` is how many tokens before the end equal those before the place, counted up to `LONGEST_MATCH`; 0 where
    no place is followed, and never 1.
    """

    def __init__(self, token_ids: list[int]) -> None:
        """`token_ids` is the sequence's own list; tokens appended to it later are seen by `advance`."""
        self.length = 0
        self._token_ids = token_ids
        self._place = 0
        self._behind_2: dict[int, int] = {}
        self._behind_3: dict[int, int] = {}
        # For each position the one before it behind the same 3-gram; 0 for none, which can be behind none.
        self._earlier: list[int] = []
        for position in range(len(token_ids)):
            self._remember(position)
        self._search(len(token_ids))

    def advance(self) -> list[tuple[int, bool]]:
        """Take in new tokens; for each of which something was expected, the match length and whether it came true."""
        outcomes, token_ids = [], self._token_ids
        for position in range(len(self._earlier), len(token_ids)):
            self._remember(position)
            hit = False
            if self.length:
                hit = token_ids[self._place] == token_ids[position]
                outcomes.append((self.length, hit))
            if hit:
                self._place += 1
                self.length = min(self.length + 1, LONGEST_MATCH)
            else:
                self._search(position + 1)
        return outcomes

    def propose(self, num_tokens: int) -> list[int]:
        """The next tokens, if the end goes on like the place it follows, which must be known (`length`)."""
        drafts = self._token_ids[self._place : self._place + num_tokens]
        # The place lies near the end: what repeats itself goes on repeating itself.
        for i in range(num_tokens - len(drafts)):
            drafts.append(drafts[i])
        return drafts

    def _remember(self, position: int) -> None:
        """The n-grams that end before `position` lead to it from now on."""
        token_ids, earlier = self._token_ids, 0
        if position >= 2:
            pair = token_ids[position - 2] << _BITS | token_ids[position - 1]
            self._behind_2[pair] = position
            if position >= 3:
                triple = token_ids[position - 3] << 2 * _BITS | pair
                earlier = self._behind_3.get(triple, 0)
                self._behind_3[triple] = position
        self._earlier.append(earlier)

    def _search(self, end: int) -> None:
        """Follow the place whose history equals that of `end` furthest back; of equal ones the latest."""
        token_ids = self._token_ids
        self.length = 0
        if end < 2:
            return
        pair = token_ids[end - 2] << _BITS | token_ids[end - 1]
        place = self._behind_3.get(token_ids[end - 3] << 2 * _BITS | pair, 0) if end >= 3 else 0
        if not place:
            self._place = self._behind_2.get(pair, 0)
            self.length = 2 if self._place else 0
            return
        for _ in range(_CANDIDATES):
            length = self._common(place, end)
            if length > self.length:
                self._place, self.length = place, length
            place = self._earlier[place]
            if not place or self.length == LONGEST_MATCH:
                return

    def _common(self, place: int, end: int) -> int:
        """How many tokens before `place` equal those before `end`; three do."""
        token_ids, length = self._token_ids, 3
        longest = min(place, LONGEST_MATCH)
        while length < longest and token_ids[place - length - 1] == token_ids[end - length - 1]:
            length += 1
        return length
