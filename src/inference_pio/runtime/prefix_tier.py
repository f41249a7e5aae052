"""The tier below the prefix cache: where its files lie, and what they depend on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import torch

from inference_pio import layers, ops
from inference_pio.loader.identity import checkpoint_identity
from inference_pio.loader.prefix_store import PrefixStore
from inference_pio.loader.progress import file_sizes
from inference_pio.loader.store import ModelStore
from inference_pio.ops import native
from inference_pio.plugin.base import ModelPlugin
from inference_pio.runtime.opened import OpenedModel
from inference_pio.runtime.prepared import Prepared

# Of the options those that leave keys and values of equal tokens as they are, or act through what else counts. An
# option that is not named here counts.
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
        "quality",
        "enable",
        "disable",
        "allow_untested",
        "skip_tokenizer_init",
        "accept_licence",
        "download",
    )
)


def open_prefix_tier(ready: Prepared, store: ModelStore) -> PrefixStore | None:
    """The folder of this model's prefixes, or None where none was asked for."""
    if not ready.serving.prefix_disk:
        return None
    asked = int(ready.options.prefix_cache_disk_gb * 1e9)
    folder = store.prefixes_of(ready.opened.source.path)
    if store.limit_bytes is not None:
        others = store.disk_usage_bytes() - sum(file_sizes(folder))
        asked = min(asked, max(0, store.limit_bytes - others))
    return PrefixStore(folder, _key(ready), asked)


def _key(ready: Prepared) -> bytes:
    """Everything that keys and values of equal tokens depend on; rather too much than too little."""
    digest = hashlib.sha256()
    for part in (*_files(ready.files), *_settings(ready), *_code(ready.plugin)):
        digest.update(hashlib.sha256(part).digest())
    return digest.digest()


def _files(opened: OpenedModel) -> Iterator[bytes]:
    """What the checkpoint is, and its files as they are now."""
    yield checkpoint_identity(opened.checkpoint).encode()
    source = opened.source.path
    for file in [source] if source.is_file() else sorted(source.glob("*.safetensors")):
        stat = file.stat()
        yield f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode()


def _settings(ready: Prepared) -> Iterator[bytes]:
    options = {field.name: getattr(ready.options, field.name) for field in fields(ready.options)}
    stated = {name: value for name, value in options.items() if name not in _NO_MATTER}
    policy = ready.plugin.prefix_policy(ready.config)
    at_work = [(one.technique.name, one.exempt) for one in ready.techniques if one.active]
    for each in (ready.config, stated, ready.serving.cache_specs, policy, at_work, ready.dtype, ready.device):
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
