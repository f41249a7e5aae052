"""Checkpoints of tiny models, written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from inference_pio.bridge import MANIFEST
from inference_pio.conformance.case import PluginCase, Raw
from inference_pio.conformance.subject import Subject
from support.bridged import TINY, TransformersModel

FEW = ("olmo2", "olmo3", "opt", "cohere", "mixtral", "deepseek_v3")


def _no_chat(*_: object) -> str:
    raise AssertionError("the case has no chat templates")


def _subject(models: Mapping[str, Raw], workdir: Path) -> Subject:
    case = PluginCase(
        name=MANIFEST.name,
        tiny=models,
        reference=TransformersModel,
        claims=frozenset(),
        ignored=frozenset(),
        checkpoints={},
        shards={},
        refused_ranks={},
        not_interchangeable=(
            ({"architecture": "A"}, {"architecture": "B"}),
            ({"raw": {"rope_theta": 1.0}}, {"raw": {"rope_theta": 2.0}}),
            ({"torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
        ),
        render_chat=_no_chat,
    )
    return Subject(MANIFEST, case, workdir, collected={})


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """All tiny models."""
    return _subject(TINY, tmp_path_factory.mktemp("bridged"))


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Those that differ most in what attention and the cache have to do with."""
    return _subject({name: TINY[name] for name in FEW}, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="session")
def checkpoint(subject: Subject) -> Callable[[str], Path]:
    return subject.checkpoint
