"""Explanations as people read them."""

from __future__ import annotations

import pytest

from inference_pio.outputs import CacheExplanation
from inference_pio.runtime.explaining import in_words


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (
            CacheExplanation("diverged", 214, 96, 32, 96, token_id=5, known_token_id=9),
            "cache: 96 of 214 tokens reused; diverged at token 97: was 9, is 5",
        ),
        (
            CacheExplanation("diverged", 214, 96, 32, 100, token_id=5, known_token_id=9),
            "cache: 96 of 214 tokens reused; diverged at token 101: was 9, is 5 (reused are whole blocks of 32)",
        ),
        (
            CacheExplanation("diverged", 214, 96, 32, 97, token_id=5, known_token_id=5),
            "cache: 96 of 214 tokens reused; diverged at token 98: equal tokens that stand for another image "
            "(reused are whole blocks of 32)",
        ),
        (
            CacheExplanation("diverged", 214, 96, 32, 96, token_id=5),
            "cache: 96 of 214 tokens reused; nothing known goes on behind token 96",
        ),
        (
            CacheExplanation("whole", 214, 192, 32, 192),
            "cache: 192 of 214 tokens reused, all that blocks of 32 cover with a token left to compute",
        ),
        (
            CacheExplanation("new", 214, 0, 32, 0),
            "cache: 0 of 214 tokens reused; nothing known begins like it",
        ),
        (
            CacheExplanation("forgotten", 214, 32, 32, 200, other_request="request-4", seconds_ago=12.3),
            "cache: 32 of 214 tokens reused; what follows was known and made room for request-4 12 s ago",
        ),
        (
            CacheExplanation("not computed", 214, 32, 32, 200, other_request="request-4"),
            "cache: 32 of 214 tokens reused; request-4 begins with 200 of them and had not computed them",
        ),
        (
            CacheExplanation("no snapshot", 214, 0, 32, 96),
            "cache: 0 of 214 tokens reused; 96 are known, and behind more of them no copy of the state was kept",
        ),
        (CacheExplanation("off", 214, 0, 32, 0), "cache: off"),
    ],
)
def test_in_words(told: CacheExplanation, text: str) -> None:
    assert in_words(told, None).text == text
