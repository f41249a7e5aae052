"""The index of a sharded safetensors checkpoint: which file holds which tensor, inside the checkpoint's folder only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from pathlib import Path, PurePosixPath, PureWindowsPath

from inference_pio.errors import ModelFileError
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.strict_json import strict_object
from inference_pio.loader.tensor_info import is_usable_name

MAX_INDEX_BYTES = 100_000_000


def read_index(path: Path) -> dict[Path, frozenset[str]]:
    """File -> names of the tensors that the index says it holds.

    Raises:
        ModelFileError: it is not such an index, or a file is missing or lies outside the folder.
    """
    with RegularFile(path) as file:
        if file.size > MAX_INDEX_BYTES:
            raise ModelFileError(path, f"has {file.size} bytes, more than {MAX_INDEX_BYTES}")
        weight_map = strict_object(file.read(0, file.size), path, "index").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(path, "lists no tensors", where="weight_map")
    names: dict[str, set[str]] = defaultdict(set)
    for tensor, shard in weight_map.items():
        if not is_usable_name(tensor):
            raise ModelFileError(path, f"{tensor!a} is not a usable tensor name", where="weight_map")
        if not isinstance(shard, str):
            raise ModelFileError(path, f"names no file for {tensor}", where="weight_map")
        names[shard].add(tensor)
    return {_shard_path(path, shard): frozenset(names[shard]) for shard in sorted(names)}


def check_listed(index: Path, shard: str, held: Set[str], listed: Set[str]) -> None:
    """
    Raises:
        ModelFileError: a file holds other tensors than the index says.
    """
    for names, what in ((listed - held, "lacks"), (held - listed, "holds, against the index,")):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (" …" if len(names) > 5 else "")
            raise ModelFileError(index, f"{shard} {what} {len(names)} tensors: {shown}")


def _shard_path(index: Path, shard: str) -> Path:
    """Windows' rules count everywhere: an index must mean the same on every machine."""
    plain = is_usable_name(shard) and shard == PurePosixPath(shard).name == PureWindowsPath(shard).name
    if not plain or not shard.endswith(".safetensors"):
        raise ModelFileError(
            index, f"{shard!a} is not the name of a safetensors file in the same folder", where="weight_map"
        )
    path = index.parent / shard
    if not path.exists():
        raise ModelFileError(index, f"{shard} is missing", hint="download incomplete")
    if not path.resolve().is_relative_to(_root(index.parent)):
        raise ModelFileError(index, f"{shard} is a link that leads out of the checkpoint's folder")
    return path


def _root(folder: Path) -> Path:
    """Where files may really lie: the folder, or the whole repository in the hub's cache, whose snapshots are links."""
    resolved = folder.resolve()
    repository = resolved.parent.parent
    is_snapshot = resolved.parent.name == "snapshots" and (repository / "blobs").is_dir()
    return repository if is_snapshot else resolved
