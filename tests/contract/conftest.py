"""Every registered plugin, with the configurations that were collected."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from inference_pio.conformance.case import Raw
from inference_pio.conformance.subject import Subject

CONFIGS = Path(__file__).parents[1] / "data" / "configs"


@pytest.fixture(scope="session")
def collected() -> dict[str, Raw]:
    return {path.name: json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.config.json"))}


@pytest.fixture(scope="session")
def subject_of(
    tmp_path_factory: pytest.TempPathFactory, collected: dict[str, Raw]
) -> Callable[[str], Subject]:
    """A plugin's subject by name; its tiny checkpoints are written once a session."""

    @cache
    def subject(name: str) -> Subject:
        return Subject.of(name, tmp_path_factory.mktemp(name), collected)

    return subject
