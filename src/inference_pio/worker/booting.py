"""How one worker is locked in and what it is given, out of a level, limits and the place of a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from inference_pio.children.beginning import import_paths
from inference_pio.errors import ResourceError
from inference_pio.loader.store import SCRATCH_VARIABLE, ModelStore, is_writable
from inference_pio.metrics.gpu_memory import GpuMemory
from inference_pio.metrics.hardware import compute_threads
from inference_pio.packages.external import check_unchanged
from inference_pio.plugin.registry import External
from inference_pio.security.confine import Confinement
from inference_pio.security.enforcement import worker_report
from inference_pio.security.levels import ResourceLimits, SecurityLevel
from inference_pio.security.proof import prove
from inference_pio.security.reach import Places, interpreter, reach_of
from inference_pio.security.report import EnforcementReport, threads_for
from inference_pio.security.user import User, user_and_reading, worker_user
from inference_pio.worker.holding import Holding
from inference_pio.worker.messages import Boot
from inference_pio.worker.scratch import Scratch

# What a model's folder has for others to read: weights, configurations, templates, vocabularies.
_ENDINGS = (".safetensors", ".gguf", ".json", ".jinja")
_MOST_FILES = 2048
THREADS_VARIABLE = "OMP_NUM_THREADS"
_PLANNING_BYTES = 700_000_000
STACK_MB = 2
# Address space that is set aside and not touched, which RLIMIT_DATA counts: stacks of threads, rests of mappings.
_RESERVED_BYTES, _RESERVED_PER_THREAD = 32_000_000, 16_000_000
# Pieces of code that oneDNN has made for shapes it has met, in torch's store and its own: without a bound a gigabyte.
KEPT_CODE = {"LRU_CACHE_CAPACITY": "32", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",  # it has no network
    # Between two steps the engine's thread is alone: another that spins would keep the parent from taking the token.
    # Threads spin between two operations and not between two steps (some 60 µs): then the parent has their processor.
    "GOMP_SPINCOUNT": "4000",
    **KEPT_CODE,
    # One heap for all threads: what the one has freed serves the other. With several, images took 70 MB more.
    "MALLOC_ARENA_MAX": "1",
    "OMP_STACKSIZE": f"{STACK_MB}M",  # 8 otherwise, of each thread
    "OPENBLAS_NUM_THREADS": "1",  # NumPy's own, which computes nothing here: 33 MB are set aside for each
}


@dataclass(frozen=True)
class Cell:
    """Where one worker lives.

    model     the file or folder that is loaded; None: there is none so far
    scratch   the one folder that it may write to; None: it writes nothing
    external  the plugin of others that runs it; None: a built-in one
    """

    level: SecurityLevel
    limits: ResourceLimits | None
    model: Path | None
    store: ModelStore
    scratch: Scratch | None = None
    external: External | None = None

    @classmethod
    def of(
        cls,
        level: SecurityLevel,
        limits: ResourceLimits | None,
        model: Path | None,
        store: ModelStore,
        writes: Sequence[str] = (),
        external: External | None = None,
    ) -> Cell:
        """
        Args:
            writes: what was asked for that needs files of its own.

        Raises:
            ResourceError: it may have none.
        """
        most = None if limits is None else int(limits.disk_space_gb * 1e9)
        low, why = level is SecurityLevel.LOW_TRUST, ""
        if most == 0:
            why = "with disk_space_gb 0: raise it"
        elif low and most is None:
            why = "at low_trust without a limit of the disk: set disk_space_gb"
        elif not is_writable(store.home):
            why = f"where {store.home} takes no files: make it writable, or set INFERENCE_PIO_HOME"
        if why and writes:
            raise ResourceError(f"{', '.join(writes)}: needs files, and a worker has none {why}")
        if why or (low and not writes):
            return cls(level, limits, model, store, external=external)
        return cls(level, limits, model, store, Scratch.below(store.home, most), external)

    @property
    def most_bytes(self) -> int | None:
        """Of memory of its own."""
        return None if self.limits is None else round(self.limits.memory_gb * 1e9)

    @property
    def planning_bytes(self) -> int | None:
        """The same while it plans: what runs models has to be imported for that, and what follows may be refused."""
        return None if self.most_bytes is None else max(self.most_bytes, _PLANNING_BYTES)

    def data_bytes(self, memory_bytes: int | None) -> int | None:
        """Its RLIMIT_DATA where it may have that much memory; who watches it counts what it touches."""
        if memory_bytes is None:
            return None
        return memory_bytes + _RESERVED_BYTES + _RESERVED_PER_THREAD * self._threads()

    def hold(self, pid: int, kill: Callable[[str], None]) -> Holding:
        """A process that has done nothing so far, from now on."""
        return Holding(
            pid,
            self.limits,
            self.planning_bytes,
            free_to_widen=self._free_to_widen,
            kill=kill,
            scratch=self.scratch,
        )

    def confinement(self) -> Confinement:
        gpu = self.limits is not None and self.limits.gpu_memory_gb > 0
        folders = () if self.external is None else self.external.folders
        places = Places(
            [*import_paths(), *folders],
            _places_of(self.model),
            self.store.home,
            None if self.scratch is None else self.scratch.folder,
            gpu=gpu,
        )
        user, reading = self._user()
        return Confinement(
            self.level,
            user=user,
            reading=reading,
            data_bytes=self.data_bytes(self.planning_bytes),
            file_bytes=0 if self.scratch is None else self.scratch.most_bytes,
            processors=_processors(self.limits),
            reach=reach_of(self.level, places),
        )

    def boot(self) -> Boot:
        """A first message; its files are open, and whoever sends it closes them here.

        Raises:
            PluginError: the plugin's package was changed.
        """
        if self.external is not None:
            check_unchanged(self.external)
        if self.scratch is not None:
            self.scratch.make(self._user()[0])
        low = self.level is SecurityLevel.LOW_TRUST
        return Boot(self.confinement(), _opened(_files(self.model)) if low else {}, os.getpid())

    def contents(self) -> dict[str, tuple[int, ...]]:
        """What tells whether the model's files, those that are there, are what they were."""
        if self.model is None:
            return {}
        found: dict[str, tuple[int, ...]] = {}
        for file in _beside(self.model) if self.model.is_dir() else [self.model]:
            with suppress(FileNotFoundError):
                stat = file.stat()
                found[str(file)] = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return found

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

        with self._scratch_made() as folder:
            proof = prove(self.confinement(), import_paths(), held, self._threads_to_try(), folder)
        counts = self.limits is not None and self.limits.gpu_memory_gb
        uncounted = GpuMemory().reason if counts else ""
        return worker_report(self.level, self.limits, proof, groups[0] if groups else (), uncounted)

    @contextmanager
    def _scratch_made(self) -> Iterator[Path | None]:
        if self.scratch is None:
            yield None
            return
        self.scratch.make(self._user()[0])
        try:
            yield self.scratch.folder
        finally:
            self.scratch.wipe()

    def environment(self) -> dict[str, str]:
        """Of variables, beside the few that every worker has."""
        shown = {"INFERENCE_PIO_HOME": str(self.store.home), **_SETTINGS}
        shown[THREADS_VARIABLE] = str(_asked_threads() or self._threads())
        if self.scratch is not None:
            shown[SCRATCH_VARIABLE] = str(self.scratch.folder)
        return {**shown, **_no_device(self.limits)}

    def _user(self) -> tuple[User | None, bool]:
        """Who it becomes, and whether it has to read what only this process's user may."""
        if self.level is SecurityLevel.MAXIMUM_TRUST:
            return None, False
        needed: list[str | Path] = [*import_paths(), *interpreter()]
        if self.external is not None:
            needed += self.external.folders
        if self.level is not SecurityLevel.LOW_TRUST:  # there, its model's files are open when it starts
            needed += [*_places_of(self.model), *_files(self.model)]
        if self.scratch is not None:
            needed.append(self.scratch.folder.parent)
        return user_and_reading(worker_user(), needed)

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


def confinement_of_a_verb(limits: ResourceLimits) -> Confinement:
    """Of a process that does its own work beside running a model: limits and no walls, from its beginning."""
    return Confinement(
        SecurityLevel.MAXIMUM_TRUST,
        data_bytes=round(limits.memory_gb * 1e9),
        file_bytes=int(limits.disk_space_gb * 1e9),
        processors=_processors(limits),
    )


def environment_of_a_verb(limits: ResourceLimits) -> dict[str, str]:
    """Beside all that this process has."""
    threads = min(compute_threads(), threads_for(limits.cpu_percent))
    return {THREADS_VARIABLE: str(_asked_threads() or threads), **_no_device(limits)}


def _no_device(limits: ResourceLimits | None) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ""} if limits is not None and limits.gpu_memory_gb == 0 else {}


def _processors(limits: ResourceLimits | None) -> tuple[int, ...]:
    if limits is None:
        return ()
    allowed = sorted(os.sched_getaffinity(0))
    return tuple(allowed[: threads_for(limits.cpu_percent)])


def _asked_threads() -> int:
    """What the variable asks for, of a list the first; 0 where it says no such number."""
    first = os.environ.get(THREADS_VARIABLE, "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and len(first) < 5 else 0


def _files(model: Path | None) -> Sequence[Path]:
    if model is None:
        return []
    if not model.is_dir():
        return [model, *(file for file in _beside(model.parent) if file.suffix == ".json")]
    return _beside(model)


def _opened(files: Sequence[Path]) -> dict[str, int]:
    """All of them, or none."""
    descriptors: dict[str, int] = {}
    try:
        for file in files:
            descriptors[str(file)] = os.open(file, os.O_RDONLY)
    except OSError:
        for descriptor in descriptors.values():
            os.close(descriptor)
        raise
    return descriptors


def _beside(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.iterdir() if file.suffix in _ENDINGS and file.is_file())
    return found[:_MOST_FILES]


def _places_of(model: Path | None) -> list[Path]:
    """Files in the hub's folders are links to others."""
    if model is None:
        return []
    folder = model if model.is_dir() else model.parent
    return [folder, *{file.resolve().parent for file in _files(model)}]
