"""How one worker is locked in and what it is given, out of a level, limits and the place of a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference_pio.children.beginning import import_paths
from inference_pio.loader.store import ModelStore
from inference_pio.metrics.hardware import compute_threads
from inference_pio.security.confine import Confinement
from inference_pio.security.enforcement import worker_report
from inference_pio.security.levels import ResourceLimits, SecurityLevel
from inference_pio.security.proof import prove
from inference_pio.security.reach import Places, reach_of
from inference_pio.security.report import EnforcementReport, threads_for
from inference_pio.worker.holding import Holding
from inference_pio.worker.messages import Boot

# What a model's folder has for others to read: weights, configurations, templates, vocabularies.
_ENDINGS = (".safetensors", ".gguf", ".json", ".jinja")
_MOST_FILES = 2048
THREADS_VARIABLE = "OMP_NUM_THREADS"
_PLANNING_BYTES = 700_000_000
STACK_MB = 2
_NO_NETWORK = {"HF_HUB_OFFLINE": "1"}
# RLIMIT_DATA counts what is mapped, used or not: by default 8 MB for each thread's stack, and 32 MB for each of the
# threads that numpy would multiply matrices with, which nothing here has it do.
_NARROW = {"OMP_STACKSIZE": f"{STACK_MB}M", "OPENBLAS_NUM_THREADS": "1"}


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
    def planning_bytes(self) -> int | None:
        """The same while it plans: what runs models has to be imported for that, and what follows may be refused."""
        return None if self.most_bytes is None else max(self.most_bytes, _PLANNING_BYTES)

    def hold(self, pid: int, kill: Callable[[str], None]) -> Holding:
        """A process that has done nothing so far, from now on."""
        return Holding(pid, self.limits, self.planning_bytes, free_to_widen=self._free_to_widen, kill=kill)

    def confinement(self) -> Confinement:
        gpu = self.limits is not None and self.limits.gpu_memory_gb > 0
        places = Places(import_paths(), _places_of(self.model), self.store.home, gpu=gpu)
        return Confinement(
            self.level,
            data_bytes=self.planning_bytes,
            processors=self._processors(),
            reach=reach_of(self.level, places),
        )

    def boot(self) -> Boot:
        """A first message; its files are open, and whoever sends it closes them here."""
        low = self.level is SecurityLevel.LOW_TRUST
        files = {str(file): os.open(file, os.O_RDONLY) for file in _files(self.model)} if low else {}
        return Boot(self.confinement(), files, os.getpid())

    def report(self) -> EnforcementReport:
        """What of level and limits holds here, by a canary that is held as the worker will be."""
        groups: list[tuple[str, ...]] = []

        @contextmanager
        def held(pid: int) -> Iterator[Callable[[], None]]:
            holding = self.hold(pid, lambda _: None)
            groups.append(holding.by_group)
            try:
                yield holding.watch.look
            finally:
                holding.close()

        proof = prove(self.confinement(), import_paths(), held, self._threads_to_try())
        return worker_report(self.level, self.limits, proof, groups[0] if groups else ())

    def environment(self) -> dict[str, str]:
        """Of variables, beside the few that every worker has."""
        shown = {"INFERENCE_PIO_HOME": str(self.store.home), **_NO_NETWORK, **_NARROW}
        shown[THREADS_VARIABLE] = os.environ.get(THREADS_VARIABLE, str(self._threads()))
        if self.limits is not None and self.limits.gpu_memory_gb == 0:
            shown["CUDA_VISIBLE_DEVICES"] = ""
        return shown

    def _threads(self) -> int:
        there = compute_threads()
        return there if self.limits is None else min(there, threads_for(self.limits.cpu_percent))

    def _threads_to_try(self) -> int:
        """More than the limit allows; none where it allows all that there is."""
        there = len(os.sched_getaffinity(0))
        if self.limits is None or self.limits.cpu_percent >= 100 * there:
            return 0
        return threads_for(self.limits.cpu_percent) + 1

    @property
    def _free_to_widen(self) -> bool:
        return self.level in (SecurityLevel.HIGH_TRUST, SecurityLevel.MAXIMUM_TRUST)

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
