"""The tier below the prefix cache: whether a model may have one, and what its blocks depend on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import torch

from inference_pio import layers, ops
from inference_pio.cache.specs import CacheSpec, state_specs
from inference_pio.errors import UsageError
from inference_pio.loader.prefix_store import PrefixStore
from inference_pio.loader.progress import file_sizes
from inference_pio.loader.store import ModelStore
from inference_pio.ops import native
from inference_pio.parallel import Shard
from inference_pio.plugin.base import ModelPlugin
from inference_pio.runtime.prepared import Prepared

# Of the options those that leave keys and values of equal tokens as they are. An option that is not named here counts.
_NO_MATTER = frozenset(
    (
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "speculation",
        "kv_cache_memory_gb",
        "prefix_cache_disk_gb",
        "explain_cache",
        "experts",
        "skip_tokenizer_init",
        "accept_licence",
        "download",
    )
)
_SAMPLES, _SAMPLE_BYTES = 64, 4096


def check_prefix_tier(ready: Prepared) -> None:
    """Raise `UsageError` where prefixes are to be kept on the disk and cannot be."""
    if not ready.options.prefix_cache_disk_gb:
        return
    name = ready.config.model_name
    if not ready.config.use_prefix_caching:
        raise UsageError("prefix_cache_disk_gb keeps cached prefixes on the disk, and prefix caching is off")
    if state_specs(_specs(ready)):
        raise UsageError(
            f"{name}: layers keep state, of which no copies are kept on the disk, and without one no prefix is reused; "
            f"leave prefix_cache_disk_gb out"
        )


def open_prefix_tier(ready: Prepared, store: ModelStore) -> PrefixStore | None:
    """The folder of this model's prefixes, or None where none was asked for."""
    asked = int(ready.options.prefix_cache_disk_gb * 1e9)
    if not asked:
        return None
    folder = store.prefixes_of(ready.opened.source.path)
    if store.limit_bytes is not None:
        others = store.disk_usage_bytes() - sum(file_sizes(folder))
        asked = min(asked, max(0, store.limit_bytes - others))
    return PrefixStore(folder, _key(ready), asked)


def _specs(ready: Prepared) -> Sequence[CacheSpec]:
    return ready.plugin.cache_specs(ready.config, ready.kv_dtype, Shard())


def _key(ready: Prepared) -> bytes:
    """Everything that keys and values of equal tokens depend on; rather too much than too little."""
    digest = hashlib.sha256()
    for part in (*_files(ready.opened.source.path), *_settings(ready), *_code(ready.plugin)):
        digest.update(hashlib.sha256(part).digest())
    return digest.digest()


def _files(source: Path) -> Iterator[bytes]:
    """The checkpoint's files as they are now, and a little of what is in them."""
    for file in [source] if source.is_file() else sorted(source.glob("*.safetensors")):
        stat = file.stat()
        yield f"{file.absolute()} {stat.st_size} {stat.st_mtime_ns}".encode()
        with file.open("rb") as data:
            for number in range(_SAMPLES):
                data.seek(stat.st_size * number // _SAMPLES)
                yield data.read(_SAMPLE_BYTES)


def _settings(ready: Prepared) -> Iterator[bytes]:
    options = {field.name: getattr(ready.options, field.name) for field in fields(ready.options)}
    stated = {name: value for name, value in options.items() if name not in _NO_MATTER}
    policy = ready.plugin.prefix_policy(ready.config)
    for each in (ready.config, stated, _specs(ready), policy, ready.dtype, ready.kv_dtype, ready.device):
        yield repr(each).encode()
    yield repr(sorted(ready.packing.kinds.items())).encode()


def _code(plugin: ModelPlugin) -> Iterator[bytes]:
    """What computes them: another version rounds otherwise, if no worse."""
    yield torch.__version__.encode()
    if plugin.manifest.fallback:
        yield metadata.version("transformers").encode()
    yield native.library_digest()
    for module in (plugin.__module__, ops.__name__, layers.__name__):
        for file in sorted(Path(str(sys.modules[module].__file__)).parent.rglob("*.py")):
            yield file.read_bytes()
