"""The calibration text of the package."""

from __future__ import annotations

from importlib import resources

_FILE = "calibration_text.txt"


def usual_text() -> str:
    """Prose and code, 100 kB: scenes of plays by Shakespeare (public domain), pages and modules of this project."""
    return resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
