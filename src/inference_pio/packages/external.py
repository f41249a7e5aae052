"""Which plugins of others there are: entry points of this environment, and packages that were installed for them."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from pathlib import Path

from inference_pio.errors import PluginError, UnavailableError
from inference_pio.loader.store import default_home
from inference_pio.packages.store import Package, PackageStore
from inference_pio.plugin.registry import ENTRY_POINT_GROUP, External

_log = logging.getLogger("inference_pio")


def external_plugins() -> tuple[External, ...]:
    """What distributions state; nothing of them is imported. A package whose receipt cannot be read is left out, with a
    line in the log.
    """
    found = [
        External(entry.name, entry.value, entry.dist.name if entry.dist else entry.value)
        for entry in entry_points(group=ENTRY_POINT_GROUP)
    ]
    for folder in _package_folders():
        try:
            receipt = Package.at(folder).receipt
        except PluginError as error:
            _log.warning("%s", error)
            continue
        found += [
            External(name, target, receipt.name, (str(folder),)) for name, target in receipt.plugins.items()
        ]
    return tuple(found)


def check_unchanged(external: External) -> None:
    """Whether the package behind a plugin is still what was installed; one of this environment has no receipt.

    Raises:
        PluginError: it is not, or has gone.
    """
    for folder in external.folders:
        Package.at(Path(folder)).check()


def _package_folders() -> tuple[Path, ...]:
    try:
        return PackageStore(default_home()).folders()
    except UnavailableError:  # no home folder: nothing is installed there
        return ()
