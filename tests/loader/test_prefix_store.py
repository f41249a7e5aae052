from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

import numpy as np

from inference_pio.loader import prefix_store
from inference_pio.loader.prefix_store import PrefixStore
from support.prefix_blocks import KEY, ROOT, SIZE, block, digest


def opened(folder: Path, key: bytes = KEY, limit: int = 10**9) -> PrefixStore:
    return PrefixStore(folder / "model", key, limit)


def filled(folder: Path, count: int = 3, **options) -> None:
    store = opened(folder, **options)
    for number in range(count):
        store.store(block(number), wait=True)
    store.close()


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.block"))


def test_what_was_stored_comes_back_in_another_process(tmp_path):
    filled(tmp_path)
    store = opened(tmp_path)
    found = [data.tolist() for data in store.load(ROOT, [digest(number) for number in range(5)])]
    assert found == [block(number).data.tolist() for number in range(3)]
    assert next(store.load(digest(0), [digest(1)])).tolist() == block(1).data.tolist()
    assert (store.num_loaded, store.num_broken) == (4, 0)
    assert store.following(digest(0)) == [[1, 7, 8, 9]]
    assert store.following(digest(2)) == []
    store.close()


def test_what_is_underway_is_found_too(tmp_path, monkeypatch):
    store = opened(tmp_path)
    monkeypatch.setattr(store, "_write", lambda _: None)
    with store._changed:  # the writer waits
        store._underway[digest(0)] = block(0)
        assert next(store.load(ROOT, [digest(0)])).tolist() == block(0).data.tolist()
        assert store.following(ROOT) == [[0, 7, 8, 9]]
    store.close()


def test_every_byte_counts(tmp_path, caplog):
    filled(tmp_path, count=1)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    store = opened(tmp_path)
    draw = np.random.default_rng(0)
    for place in [
        *range(prefix_store._HEADER.size + 32 + 40),
        *draw.integers(0, len(whole), 200).tolist(),
        *range(len(whole) - 32, len(whole)),
    ]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        assert list(store.load(ROOT, [digest(0)])) == [], place
        assert not path.exists()
    for length in (0, 1, prefix_store._HEADER.size, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert list(store.load(ROOT, [digest(0)])) == []
    path.write_bytes(whole + b"\0")
    assert list(store.load(ROOT, [digest(0)])) == []
    path.write_bytes(whole)
    assert len(list(store.load(ROOT, [digest(0)]))) == 1
    store.close()
    assert store.num_broken > 400
    assert len([record for record in caplog.records if "damaged" in record.message]) == 1


def test_a_block_in_the_place_of_another_is_none(tmp_path):
    filled(tmp_path, count=3)
    first, second, third = files(tmp_path)
    first.write_bytes(second.read_bytes())
    store = opened(tmp_path)
    assert list(store.load(ROOT, [digest(0)])) == []
    assert list(store.load(ROOT, [digest(1)])) == []  # whole, and behind another prefix
    assert len(list(store.load(digest(1), [digest(2)]))) == 1
    store.close()
    assert files(tmp_path) == [third]


def test_another_key_finds_nothing_and_its_files_do_not_pass(tmp_path):
    filled(tmp_path, count=1)
    (mine,) = files(tmp_path)
    other = opened(tmp_path, key=b"o" * 32)
    assert list(other.load(ROOT, [digest(0)])) == []
    (other._own / mine.name).write_bytes(mine.read_bytes())
    assert list(other.load(ROOT, [digest(0)])) == []
    assert other.num_broken == 1
    other.close()
    assert mine.exists()


def test_a_record_of_another_version_is_none(tmp_path, monkeypatch):
    """Whole, and with a checksum that fits."""
    monkeypatch.setattr(prefix_store, "_MAGIC", b"PIOPFX00")
    filled(tmp_path, count=1)
    monkeypatch.undo()
    store = opened(tmp_path)
    assert list(store.load(ROOT, [digest(0)])) == []
    store.close()
    assert (store.num_broken, files(tmp_path)) == (1, [])


def test_files_and_folders_are_for_their_owner_only(tmp_path):
    (tmp_path / "model").mkdir(mode=0o755)
    filled(tmp_path, count=1)
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").rglob("*")}
    assert modes == {True: 0o700, False: 0o600}
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o700


def test_a_link_is_not_followed(tmp_path):
    filled(tmp_path, count=1)
    (path,) = files(tmp_path)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    store = opened(tmp_path)
    assert list(store.load(ROOT, [digest(0)])) == []
    store.close()
    assert (tmp_path / "elsewhere").exists()


def test_the_limit_holds_and_what_was_used_longest_ago_goes(tmp_path):
    each = SIZE + prefix_store._HEADER.size + 4 * 8 + 32
    filled(tmp_path, count=4, key=b"a" * 32)  # of another version
    for age, path in enumerate(files(tmp_path)):
        os.utime(path, (age + 1, age + 1))
    store = opened(tmp_path, limit=6 * each)
    for number in range(5):
        store.store(block(number), wait=True)
    store.close()
    there = files(tmp_path)
    assert sum(path.stat().st_size for path in there) <= 6 * each
    assert len([path for path in there if path.parent == store._own]) == 5
    store = opened(tmp_path, limit=6 * each)
    for number in range(5):
        os.utime(store._path(digest(number)), (100 + number, 100 + number))
    assert len(list(store.load(ROOT, [digest(0)]))) == 1
    for number in range(5, 9):
        store.store(block(number), wait=True)
    store.close()
    assert store._path(digest(0)).exists()
    assert not store._path(digest(1)).exists()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 6 * each


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path):
    filled(tmp_path, count=3, limit=SIZE - 1)
    assert files(tmp_path) == []


def test_who_cannot_wait_is_not_made_to(tmp_path, monkeypatch):
    monkeypatch.setattr(prefix_store, "_MOST_UNDERWAY", 2 * SIZE)
    store = opened(tmp_path)
    with store._changed:
        for number in range(4):
            store.store(block(number))
    store.close()
    assert store.num_dropped == 2
    assert len(files(tmp_path)) == 2
    filled(tmp_path, count=9)
    assert len(files(tmp_path)) == 9


def test_a_full_disk_silences_it_after_one_line(tmp_path, monkeypatch, caplog):
    real, left = os.open, [1]

    def nearly_full(path, flags, *rest):
        if flags & os.O_CREAT and "generation" not in str(path):
            if not left[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            left[0] -= 1
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", nearly_full)
    filled(tmp_path, count=5)
    assert len(files(tmp_path)) == 1
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "No space left on device; answers are not affected"
    ]
    assert not list(tmp_path.rglob(".*"))
    monkeypatch.undo()
    store = opened(tmp_path)
    assert len(list(store.load(ROOT, [digest(0), digest(1)]))) == 1
    store.close()


def test_a_folder_that_cannot_be_made_silences_it_too(tmp_path, caplog):
    (tmp_path / "model").write_text("a file")
    store = opened(tmp_path)
    store.store(block(0), wait=True)
    assert list(store.load(ROOT, [digest(0)])) == []
    store.close()
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING


def test_forgetting_leaves_nothing_and_changes_the_generation(tmp_path):
    filled(tmp_path)
    store = opened(tmp_path)
    before = store.generation
    store.forget()
    assert files(tmp_path) == []
    assert store.generation != before
    store.store(block(0), wait=True)
    store.close()
    again = opened(tmp_path)
    assert again.generation == store.generation
    assert len(list(again.load(ROOT, [digest(0)]))) == 1
    again.close()


def test_two_at_once_share_a_folder(tmp_path):
    one, two = opened(tmp_path), opened(tmp_path)
    assert one.generation == two.generation
    for number in range(20):
        (one if number % 2 else two).store(block(number), wait=True)
        (two if number % 3 else one).store(block(number), wait=True)
    one.close()
    two.close()
    third = opened(tmp_path)
    assert len(list(third.load(ROOT, [digest(number) for number in range(20)]))) == 20
    assert not list(tmp_path.rglob(".*"))
    third.close()


def test_what_an_ended_process_left_half_written_is_cleared_away(tmp_path):
    filled(tmp_path, count=1)
    draft = files(tmp_path)[0].with_name(".aa.0123")
    draft.write_bytes(b"half")
    os.utime(draft, (1, 1))
    fresh = draft.with_name(".bb.0123")
    fresh.write_bytes(b"half")
    store = opened(tmp_path)
    store.store(block(1), wait=True)
    store.close()
    assert not draft.exists()
    assert fresh.exists()
