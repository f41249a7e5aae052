"""What is known of published models without their files: configurations, and headers of the catalogue's GGUF files.

The data is `known.json`. A model that has a `config` is one of the hub's: nothing is claimed of its files' sizes and
hashes, the hub says them. One that has `metadata` and `tensors` is the catalogue's file of that name, described by what
its header says.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from inference_pio.loader.ggml_types import TYPES_BY_NAME
from inference_pio.loader.tensor_info import DescribedCheckpoint, TensorInfo


class KnownTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GGUF file's tensors of one pattern: `*` is the layer.

    shape   outermost dimension first
    others  kind -> the layers in which it is stored so instead
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    others: dict[str, tuple[int, ...]] = {}

    def infos(self, layers: int) -> Iterator[TensorInfo]:
        kinds = {layer: kind for kind, listed in self.others.items() for layer in listed}
        for layer in range(layers if "*" in self.name else 1):
            kind = TYPES_BY_NAME[kinds.get(layer, self.kind)]
            name = self.name.replace("*", str(layer))
            yield TensorInfo(name, self.shape, kind.name, kind.nbytes(math.prod(self.shape)))


class KnownModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model.

    repo      its repository on the hub; empty for files of the catalogue
    source    where this description comes from
    config    its config.json
    metadata  of the GGUF file, without lists
    lengths   of the metadata's lists
    tensors   of the GGUF file
    """

    name: str
    source: str
    repo: str = ""
    config: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    tensors: tuple[KnownTensor, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.repo and self.config) == bool(self.metadata and self.tensors):
            raise ValueError(f"model {self.name!r}: a repository's config, or a file's metadata and tensors")

    @property
    def path(self) -> Path:
        """What stands for a path in messages."""
        return Path(self.repo or self.name)

    def raw(self) -> dict[str, Any]:
        """As a checkpoint's `raw_config`; of lists there is only their length."""
        if self.config:
            return self.config
        lists = {key: range(length) for key, length in self.lengths.items()}
        names = frozenset(info.name for info in self._infos())
        return {**self.metadata, **lists, "gguf.tensor_names": names}

    def header(self) -> DescribedCheckpoint | None:
        """The GGUF file's tensors; None where there is only a configuration."""
        if not self.tensors:
            return None
        return DescribedCheckpoint(self.path, "gguf", {info.name: info for info in self._infos()})

    def _infos(self) -> Iterator[TensorInfo]:
        layers = self.metadata[f"{self.metadata['general.architecture']}.block_count"]
        return (info for tensor in self.tensors for info in tensor.infos(layers))


@functools.cache
def known_models() -> tuple[KnownModel, ...]:
    """Every model of `known.json`, in its order."""
    data = resources.files(__package__).joinpath("known.json").read_bytes()
    return msgspec.json.decode(data, type=tuple[KnownModel, ...])


def find_known(name: str) -> KnownModel | None:
    """By name or by repository; case does not matter."""
    wanted = name.lower()
    return next(
        (known for known in known_models() if wanted in (known.name, known.repo.lower()) and wanted), None
    )
