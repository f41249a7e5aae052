from __future__ import annotations

import hashlib
import struct

from inference_pio.cache.prefix_index import PrefixIndex


def test_a_digest_covers_seed_and_everything_before():
    index = PrefixIndex(("model", "bf16"))
    first = index.digest(index.root, [1, 2])
    assert first == hashlib.blake2b(index.root + struct.pack("=2q", 1, 2), digest_size=32).digest()
    digests = {
        index.digest(first, [3, 4]),
        index.digest(index.root, [3, 4]),
        index.digest(index.digest(index.root, [2, 1]), [3, 4]),
        index.digest(index.digest(PrefixIndex(("model", "int8")).root, [1, 2]), [3, 4]),
    }
    assert len(digests) == 4


def test_seeds_are_not_merely_joined():
    assert PrefixIndex(("ab", "c")).root != PrefixIndex(("a", "bc")).root


def test_the_first_of_two_equal_blocks_stays():
    index = PrefixIndex(())
    digest = index.digest(index.root, [1])
    index.insert(digest, 7)
    index.insert(digest, 8)
    assert index.find(digest) == 7
    assert 7 in index
    assert 8 not in index
    index.remove(7)
    assert index.find(digest) is None
    assert len(index) == 0


def test_after_clearing_old_chains_cannot_be_continued():
    index = PrefixIndex(("m",))
    old = index.root
    index.clear()
    assert index.root != old
