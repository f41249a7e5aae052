"""What writes files, and what has to hold wherever it was interrupted; `test_interrupted_writes.py` runs this apart.

python interrupted.py <folder>
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from inference_pio.errors import InferencePIOError, PluginError
from inference_pio.loader.partial import write_atomically
from inference_pio.loader.prefix_store import PrefixStore
from inference_pio.packages.store import PackageStore
from support.failing_calls import DIED, DONE, REFUSED, UNHARMED, How, every_stop
from support.plugin_wheels import wheel
from support.prefix_blocks import KEY, ROOT, block, digest


def prefixes(folder: Path, how: How) -> int:
    """A cached prefix is whole or not there, and nobody but its owner hears of a full disk."""
    home = folder / "prefixes"

    def act() -> None:
        store = PrefixStore(home, KEY, 10**9)
        store.store(block(0), wait=True)
        store.store(block(1), wait=True)
        store.close()

    tries = 0
    for where, code in every_stop(act, how, (0, 1, 100, 1100, 1101)):
        assert code in (UNHARMED, DONE if how == "full disk" else DIED), (where, code)
        store = PrefixStore(home, KEY, 10**9)
        found = [data.tolist() for data in store.load(ROOT, [digest(0), digest(1)])]
        store.close()
        assert found == [block(number).data.tolist() for number in range(len(found))], where
        assert (store.num_broken, len(store.generation)) == (0, 16), where
        shutil.rmtree(home)
        tries += 1
    return tries


def receipts(folder: Path, how: How) -> int:
    """A file has what it had, or all that is new."""
    path = folder / "receipt.json"
    before, after = b"before", b"after, and longer"
    tries = 0
    for where, code in every_stop(lambda: write_atomically(path, after), how, (0, 1, 16, 17)):
        assert code in (UNHARMED, REFUSED if how == "full disk" else DIED), (where, code)
        there = path.read_bytes() if path.exists() else None
        assert there == after if code == UNHARMED else there in (None, before, after), where
        if how == "full disk":
            assert {file.name for file in folder.iterdir()} <= {path.name}, where
        path.write_bytes(before)
        tries += 1
    return tries


def packages(folder: Path, how: How) -> int:
    """A package is installed or not, and either way can be installed afterwards, once."""
    file, store = wheel(folder), PackageStore(folder / "home")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    tries = 0
    for where, code in every_stop(_told(lambda: store.install(file, sha256)), how, (0, 20, 200)):
        there = store.installed()
        assert len(there) <= 1, where
        assert code != UNHARMED or there, where
        for package in there:
            package.check()
            store.remove("weather")
        store.install(file, sha256).check()
        for again, _ in every_stop(_told(lambda: store.remove("weather")), how):
            for package in store.installed():
                package.check()
            with suppress(PluginError):
                store.remove("weather")
            store.install(file, sha256).check()
            assert len(store.installed()) == 1, (where, again)
            tries += 1
            if tries > 40:  # the first tries have shown it for every later one
                break
        store.remove("weather")
        tries += 1
    return tries


def _told(act: Callable[[], object]) -> Callable[[], None]:
    """An error of ours is what a full disk may become."""

    def tried() -> None:
        try:
            act()
        except InferencePIOError as error:
            raise OSError(28, str(error)) from error

    return tried


HOWS: tuple[How, ...] = ("dies", "full disk")
ACTIONS: dict[str, Any] = {"prefixes": prefixes, "receipts": receipts, "packages": packages}


if __name__ == "__main__":
    logging.disable()
    told = {}
    for what, action in ACTIONS.items():
        for how in HOWS:
            folder = Path(sys.argv[1]) / f"{what} {how}"
            folder.mkdir()
            told[folder.name] = action(folder, how)
    print(json.dumps(told))
