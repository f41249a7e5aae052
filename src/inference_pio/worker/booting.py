"""How one worker is locked in and what it is given, out of a level, limits and the place of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_pio.loader.store import ModelStore
from inference_pio.security.confine import Confinement
from inference_pio.security.enforcement import worker_report
from inference_pio.security.levels import ResourceLimits, SecurityLevel
from inference_pio.security.proof import prove
from inference_pio.security.reach import Places, reach_of
from inference_pio.security.report import EnforcementReport, threads_for
from inference_pio.worker.messages import Boot
from inference_pio.worker.process import import_paths
from inference_pio.worker.watch import Share

# What a model's folder has for others to read: weights, configurations, templates, vocabularies.
_ENDINGS = (".safetensors", ".gguf", ".json", ".jinja")
_MOST_FILES = 2048
_NO_NETWORK = {"HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Cell:
    """Where one worker lives.

    model  the file or folder that is loaded; None: there is none so far
    """

    level: SecurityLevel
    limits: ResourceLimits | None
    model: Path | None
    store: ModelStore

    @property
    def most_bytes(self) -> int | None:
        """Of memory of its own."""
        return None if self.limits is None else int(self.limits.memory_gb * 1e9)

    @property
    def share(self) -> Share | None:
        """Pauses, where whole processors are not what the limit says."""
        if self.limits is None:
            return None
        free_to_widen = self.level in (SecurityLevel.HIGH_TRUST, SecurityLevel.MAXIMUM_TRUST)
        percent = self.limits.cpu_percent
        return Share(percent) if percent % 100 or free_to_widen else None

    def confinement(self) -> Confinement:
        gpu = self.limits is not None and self.limits.gpu_memory_gb > 0
        places = Places(import_paths(), _places_of(self.model), self.store.home, gpu=gpu)
        return Confinement(
            self.level,
            data_bytes=self.most_bytes,
            processors=self._processors(),
            reach=reach_of(self.level, places),
        )

    def boot(self) -> Boot:
        """A first message; its files are open, and whoever sends it closes them here."""
        low = self.level is SecurityLevel.LOW_TRUST
        files = {str(file): os.open(file, os.O_RDONLY) for file in _files(self.model)} if low else {}
        return Boot(self.confinement(), files, os.getpid())

    def report(self) -> EnforcementReport:
        """What of level and limits holds here, by a canary."""
        return worker_report(self.level, self.limits, prove(self.confinement(), import_paths()))

    def environment(self) -> dict[str, str]:
        """Of variables, beside the few that every worker has."""
        shown = {"INFERENCE_PIO_HOME": str(self.store.home), **_NO_NETWORK}
        if self.limits is not None and self.limits.gpu_memory_gb == 0:
            shown["CUDA_VISIBLE_DEVICES"] = ""
        return shown

    def _processors(self) -> tuple[int, ...]:
        if self.limits is None:
            return ()
        allowed = sorted(os.sched_getaffinity(0))
        return tuple(allowed[: threads_for(self.limits.cpu_percent)])


def _files(model: Path | None) -> Sequence[Path]:
    if model is None:
        return []
    if not model.is_dir():
        return [model, *(file for file in _beside(model.parent) if file.suffix == ".json")]
    return _beside(model)


def _beside(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.iterdir() if file.suffix in _ENDINGS and file.is_file())
    return found[:_MOST_FILES]


def _places_of(model: Path | None) -> list[Path]:
    """Files in the hub's folders are links to others."""
    if model is None:
        return []
    folder = model if model.is_dir() else model.parent
    return [folder, *{file.resolve().parent for file in _files(model)}]
