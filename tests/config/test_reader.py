"""Strict reading: every key is read or ignored for a reason, and every value has its type."""

from __future__ import annotations

from typing import Any

import pytest

from inference_pio.config import ConfigReader
from inference_pio.errors import ModelFileError


def reader(raw: dict[str, Any], **ignored: str) -> ConfigReader:
    return ConfigReader(raw, path="here/config.json", ignored=ignored)


def test_unread_keys_are_refused_and_named() -> None:
    with (
        pytest.raises(ModelFileError, match=r"here/config.json: unknown keys surprise"),
        reader({"a": 1, "surprise": 2}) as r,
    ):
        r.integer("a")
    with reader({"a": 1, "known": 2}, known="no matter") as r:
        assert r.integer("a") == 1


@pytest.mark.parametrize("value", [0, -1, "4096", 10**12, True, 1.5, None])
def test_integers(value: object) -> None:
    with (
        pytest.raises(ModelFileError, match="here/config.json: hidden_size"),
        reader({"hidden_size": value}) as r,
    ):
        r.integer("hidden_size")


@pytest.mark.parametrize("value", ["1e-5", True, float("nan"), 0, -1.0])
def test_numbers(value: object) -> None:
    with pytest.raises(ModelFileError, match="eps"), reader({"eps": value}) as r:
        r.number("eps")


def test_null_counts_as_missing() -> None:
    with reader({"a": None}) as r:
        assert "a" not in r
        assert r.integer("a", default=5) == 5
        assert r.mapping("b") == {}
        assert r.flag("c", default=False) is False
    with pytest.raises(ModelFileError, match="must be an object"), reader({"a": 3}) as r:
        r.mapping("a")
    with pytest.raises(ModelFileError, match="must be bool, is 1"), reader({"a": 1}) as r:
        r.flag("a")
