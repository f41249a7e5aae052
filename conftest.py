"""What every run of tests does, of the suite and of each plugin's own."""

from __future__ import annotations

import gc

import pytest


def pytest_collection_finish() -> None:
    """Everything is imported: more than a million objects that stay."""
    _keep_what_is_there()


@pytest.fixture(scope="module", autouse=True)
def quick_garbage_collection() -> None:
    """Takes what is left of earlier modules, imports above all, out of the way of the garbage collector.

    Closing a model collects garbage, which visits every object there is: a third of a second each time, half of what
    the suite took. What a module's tests make comes after this, and is found as always.
    """
    _keep_what_is_there()


def _keep_what_is_there() -> None:
    gc.collect()
    gc.freeze()
