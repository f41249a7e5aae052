"""From what a user calls a model to the file or folder that holds it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference_pio.errors import ModelNotFound
from inference_pio.loader import catalogue
from inference_pio.loader.catalogue import Entry
from inference_pio.loader.download_hub import OWN_SETTINGS, Hub, fetch_hub_gguf, fetch_hub_repo
from inference_pio.loader.known import find_known
from inference_pio.loader.progress import Progress, silent
from inference_pio.loader.pull import pull
from inference_pio.loader.rate import Bucket
from inference_pio.loader.store import ModelStore
from inference_pio.loader.weight_files import holds_weights
from inference_pio.security.held import limits_here

_LONGEST = 1024
_HUB_ID = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
    r"(?::(?P<file>(?:[A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*\.gguf))?",
    re.ASCII,
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model is. `name` is what to show and to serve it as; `entry` is set for catalogue models. Of a "known"
    one only a description is here, and `path` is no file.
    """

    name: str
    path: Path
    origin: Literal["file", "directory", "catalogue", "hub", "known"]
    entry: Entry | None = None


def resolve(
    model: str,
    *,
    store: ModelStore | None = None,
    hub: Hub = OWN_SETTINGS,
    progress: Progress | None = None,
    download: bool = True,
    accept_licence: bool = False,
    bucket: Bucket | None = None,
) -> ModelSource:
    """Find `model`: a file or folder on this machine, a catalogue name, or a hub id, in this order. The names of hub
    models whose configuration is known (`known.json`) stand for their ids.

    A hub id is `organisation/name`, or `organisation/name:file.gguf` for one GGUF file of a repository. With
    `download=False` nothing is fetched: what is not here already is an error. Raises ModelNotFound for a name
    that means nothing, and whatever `pull` and the hub raise. What is fetched comes through `bucket`.
    """
    if (limits := limits_here()) is not None:
        download = download and limits.network_bandwidth_mbps > 0
        bucket = bucket or Bucket.of(limits)
    _require_plain(model)
    if (local := _local(model)) is not None:
        return local
    if (entry := catalogue.find(model)) is not None:
        return _from_catalogue(entry, store or ModelStore(), progress, download, accept_licence, bucket)
    if (known := find_known(model)) is not None and known.repo:
        model = known.repo
    if (match := _HUB_ID.fullmatch(model)) is not None and ".." not in model and "--" not in model:
        hub = Hub(hub.endpoint, hub.cache, hub.offline or not download, bucket)
        if match["file"]:
            path = fetch_hub_gguf(match["repo"], match["file"], hub=hub, progress=progress or silent)
        else:
            path = fetch_hub_repo(match["repo"], hub=hub, progress=progress or silent)
        return ModelSource(model, path, "hub")
    raise ModelNotFound(_unknown(model))


def configuration_alone(model: str) -> Path | None:
    """The config.json that `model` means, where it is one, or a folder that holds one and no weights of any kind."""
    _require_plain(model)
    try:
        path = Path(model).expanduser()
        if path.suffix == ".json" and path.is_file():
            return path.resolve()
        config = path / "config.json"
        return config.resolve() if config.is_file() and not holds_weights(path) else None
    except (OSError, RuntimeError):  # `resolve` says why
        return None


def _require_plain(model: str) -> None:
    """Refuse, before anything is touched, what can be neither a path nor a name."""
    if not model.strip():
        raise ModelNotFound("the model's name is empty; `inference-pio models list` shows what there is")
    if len(model) > _LONGEST:
        raise ModelNotFound(
            f"the model's name has {len(model)} characters ({model[:40]!a}…), more than {_LONGEST}"
        )
    if any(char < " " or char == "\x7f" for char in model):
        raise ModelNotFound(f"the model's name {model[:80]!a} has control characters in it")
    if "://" in model:
        raise ModelNotFound(
            f"{_shown(model)} is a URL; give a path, a catalogue name or a hub id (organisation/name) instead"
        )


def _local(model: str) -> ModelSource | None:
    """The file or folder of this name; None where the name is none of a path."""
    try:
        path = Path(model).expanduser()
        if path.is_file():
            return _local_file(model, path)
        # A folder that merely has a model's name is no model.
        if path.is_dir() and ((path / "config.json").exists() or catalogue.find(model) is None):
            return ModelSource(path.resolve().name, path, "directory")
        there = path.exists()
    except (OSError, RuntimeError) as error:  # no permission; `~nobody`
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelNotFound(f"{_shown(model)} cannot be read: {reason}") from error
    if there and not path.is_dir():
        raise ModelNotFound(f"{_shown(model)} is neither a regular file nor a folder")
    if not _is_path(model, path):
        return None
    if path.parent.is_dir() and _HUB_ID.fullmatch(model):
        raise ModelNotFound(
            f"no such file or folder: {_shown(model)} (the folder {path.parent} is here, so this is a path; "
            "for the hub's model of this name run from another folder)"
        )
    raise ModelNotFound(f"no such file or folder: {_shown(model)}")


def _is_path(model: str, path: Path) -> bool:
    """Whether a name that is not there was meant as a path."""
    if model.startswith((".", "/", "~", "\\")) or path.is_absolute():
        return True
    if ":" not in model and model.lower().endswith((".gguf", ".safetensors")):
        return True
    return path.parent != Path() and ":" not in model and path.parent.is_dir()


def _local_file(model: str, path: Path) -> ModelSource:
    if not path.suffix:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != b"GGUF":
            raise ModelNotFound(
                f"{_shown(model)} is not a model file; a model is a GGUF file, a folder with config.json and "
                "safetensors, a catalogue name or a hub id"
            )
    return ModelSource(path.stem, path, "file")


def _from_catalogue(
    entry: Entry,
    store: ModelStore,
    progress: Progress | None,
    download: bool,
    accept_licence: bool,
    bucket: Bucket | None,
) -> ModelSource:
    path = store.path_of(entry)
    if path is None and not download:
        raise ModelNotFound(
            f"{entry.name} is not downloaded ({entry.size_bytes / 1e6:.0f} MB); `inference-pio models pull "
            f"{entry.name}` gets it"
        )
    if path is None:
        path = pull(entry, store, progress=progress, accept_licence=accept_licence, bucket=bucket)
    return ModelSource(entry.name, path, "catalogue", entry)


def _unknown(model: str) -> str:
    close = catalogue.suggest(model)
    hint = f"did you mean {' or '.join(close)}?" if close else f"the catalogue has {_names()}"
    return f"no model {_shown(model)}: {hint} Or give a GGUF file, a folder, or a hub id (organisation/name)"


def _names() -> str:
    return ", ".join(entry.name for entry in catalogue.entries()) + "."


def _shown(model: str) -> str:
    """The name as it can stand in a one-line message."""
    return repr(model) if model.isprintable() else ascii(model)
