"""Fetch from a model hub through huggingface_hub: one file for the store, or a repository for its own cache.

Endpoint, token, offline mode and cache folder are huggingface_hub's own settings (`HF_ENDPOINT`, `HF_TOKEN`,
`HF_HUB_OFFLINE`, `HF_HOME`), so whatever other tools have downloaded is used and the other way round. It is
imported only where something is to be fetched: it takes longer to import than all of this package.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference_pio.errors import DownloadError, ModelNotFound, UnavailableError, UnsafeWeightsError
from inference_pio.loader.catalogue import CatalogueFile, HubSource
from inference_pio.loader.partial import difference, hash_file
from inference_pio.loader.progress import Progress, file_sizes, silent, watching
from inference_pio.loader.rate import Bucket
from inference_pio.loader.store import free_bytes

# Everything a model needs beside its weights; by name, so that no code and no pickle ever comes along.
_SMALL = [
    *("config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("tokenizer.model", "chat_template.jinja", "chat_template.json", "preprocessor_config.json"),
]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Hub:
    """Where to ask and where to keep; None means what huggingface_hub's own settings say. `bucket` is what everything
    comes through; None: as fast as it comes.
    """

    endpoint: str | None = None
    cache: Path | None = None
    offline: bool = False
    bucket: Bucket | None = None

    @property
    def headers(self) -> dict[str, str] | None:
        """Of its requests, beside huggingface_hub's own."""
        return None if self.bucket is None else self.bucket.headers()


OWN_SETTINGS = Hub()


def fetch_hub_file(
    source: HubSource, file: CatalogueFile, folder: Path, progress: Progress, hub: Hub = OWN_SETTINGS
) -> None:
    """Put the catalogue's `file` into `folder`, verified, or raise DownloadError."""
    from huggingface_hub import hf_hub_download

    # huggingface_hub leaves only complete files; what it keeps about them goes with this folder.
    landing = folder / f".hub-{file.name}"
    try:
        with _one_line(source.repo, source.file), _shown(landing, file.size, file.name, progress):
            _size(hub, source.repo, source.file, source.revision)
            path = Path(
                hf_hub_download(
                    source.repo,
                    source.file,
                    revision=source.revision,
                    local_dir=landing,
                    headers=hub.headers,
                )
            )
        size, sha256 = path.stat().st_size, hash_file(path).hexdigest()
        if (size, sha256) != (file.size, file.sha256):
            raise DownloadError(difference(file, size, sha256))
        path.replace(folder / file.name)
    except UnavailableError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL:
            raise
        # Missing or gated here; another source may have it.
        raise DownloadError(str(error)) from error
    finally:
        shutil.rmtree(landing, ignore_errors=True)


def fetch_hub_gguf(repo: str, file: str, *, hub: Hub = OWN_SETTINGS, progress: Progress = silent) -> Path:
    """The path of one GGUF file of a repository in the hub's cache, downloaded if it is not there."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repo, file, cache_dir=hub.cache)
    if isinstance(cached, str):
        return Path(cached)
    with _one_line(repo, file):
        total = 0 if hub.offline else _size(hub, repo, file)
        _require_room(repo, total, _cache_folder(hub))
        with _shown(_repo_folder(hub, repo), total, file, progress):
            path = hf_hub_download(
                repo,
                file,
                endpoint=hub.endpoint,
                cache_dir=hub.cache,
                local_files_only=hub.offline,
                headers=hub.headers,
            )
    return Path(path)


def fetch_hub_repo(repo: str, *, hub: Hub = OWN_SETTINGS, progress: Progress = silent) -> Path:
    """The snapshot folder of a repository in the hub's cache: config, tokenizer and safetensors, no more.

    Asks the hub for the newest revision; without a network a complete snapshot in the cache is used. Weights
    are fetched one file after the other, from the calling thread, so that Ctrl-C stops at once.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    with _one_line(repo):
        snapshot = Path(
            snapshot_download(
                repo,
                allow_patterns=_SMALL,
                ignore_patterns="*/*",
                endpoint=hub.endpoint,
                cache_dir=hub.cache,
                local_files_only=hub.offline,
                headers=hub.headers,
            )
        )
        tree = _tree(hub, repo, snapshot)
        missing = [name for name in _weights(repo, list(tree)) if not (snapshot / name).exists()]
        total = sum(tree[name] for name in missing)
        _require_room(repo, total, _cache_folder(hub))
        with _shown(_repo_folder(hub, repo), total, repo, progress):
            for name in missing:
                hf_hub_download(
                    repo,
                    name,
                    revision=snapshot.name,
                    endpoint=hub.endpoint,
                    cache_dir=hub.cache,
                    local_files_only=hub.offline,
                    headers=hub.headers,
                )
    return snapshot


def _tree(hub: Hub, repo: str, snapshot: Path) -> dict[str, int]:
    """Names and sizes of the repository's files at this revision."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        listed = get_cached_repo_tree(repo, revision=snapshot.name, cache_dir=hub.cache)
    except CachedRepoTreeNotFoundError:
        # No network, and another tool filled the cache: what is there is all we can know, and the loader
        # compares it with the index.
        return {path.name: path.stat().st_size for path in snapshot.iterdir() if path.is_file()}
    return {item.path: item.size for item in listed}


def _size(hub: Hub, repo: str, file: str, revision: str | None = None) -> int:
    """Bytes of one file; asked for first, because a download without a network is retried for half a minute."""
    from huggingface_hub.hf_api import HfApi, RepoFile

    found = HfApi(endpoint=hub.endpoint, headers=hub.headers).get_paths_info(repo, [file], revision=revision)
    for item in found:
        if isinstance(item, RepoFile):
            return item.size
    raise ModelNotFound(f"the hub repository {repo} has no file {file}")


def _weights(repo: str, files: list[str]) -> list[str]:
    """The repository's safetensors files in the form that `config.json` describes."""
    top = [name for name in files if "/" not in name]
    # "consolidated" is a second copy of the same weights under other names.
    weights = [name for name in top if name.endswith(".safetensors") and not name.startswith("consolidated")]
    if weights and "config.json" in top:
        return sorted(weights)
    if ggufs := sorted(name for name in files if name.endswith(".gguf")):
        names = ", ".join(ggufs[:5]) + (" …" if len(ggufs) > 5 else "")
        raise ModelNotFound(f"{repo} holds GGUF files ({names}): choose one, as in {repo}:{ggufs[0]}")
    if pickles := [name for name in top if name.endswith(_PICKLES)]:
        raise UnsafeWeightsError(
            repo,
            f"only pickle-based weights ({', '.join(pickles[:3])}), which can run code",
            hint="look for a repository with *.safetensors or a GGUF file",
        )
    raise ModelNotFound(f"{repo} holds no model: it has no config.json with *.safetensors, and no GGUF file")


@contextmanager
def _one_line(repo: str, file: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line of ours."""
    import httpx2
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    what = f"{repo}:{file}" if file else repo
    try:
        with disable_progress_bars(), _quiet():
            yield
    except HFValidationError as error:
        raise ModelNotFound(f"{repo!r} is not a hub repository: {str(error).splitlines()[0]}") from error
    except (OSError, httpx2.HTTPError) as error:
        raise _translated(what, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep huggingface_hub's own remarks about retries off the terminal: progress and errors are ours to tell."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _translated(what: str, error: Exception) -> UnavailableError:
    from huggingface_hub import errors as hub_errors

    cause = error.__cause__ if isinstance(error, hub_errors.LocalEntryNotFoundError) else error
    if isinstance(cause, hub_errors.GatedRepoError):
        return UnavailableError(
            f"{what} is gated: accept its terms at the hub, then log in (hf auth login) or set HF_TOKEN"
        )
    if isinstance(cause, hub_errors.RepositoryNotFoundError):
        return ModelNotFound(
            f"the hub has no {what}; check the spelling (a private one needs hf auth login or HF_TOKEN)"
        )
    if isinstance(cause, (hub_errors.RemoteEntryNotFoundError, hub_errors.RevisionNotFoundError)):
        return ModelNotFound(
            f"the hub has no {what} at this revision; look at the repository's list of files"
        )
    if cause is None or isinstance(
        cause, (hub_errors.OfflineModeIsEnabled, hub_errors.LocalEntryNotFoundError)
    ):
        return UnavailableError(
            f"{what} is not completely in the hub's cache and nothing may be downloaded; pull it while online"
        )
    if isinstance(cause, hub_errors.HfHubHTTPError):
        return DownloadError(f"the hub answered {cause.response.status_code} for {what}; try again later")
    if isinstance(cause, OSError) and cause.errno in _DISK_FULL:
        return UnavailableError(f"the disk is full: {what} was not downloaded; free some and try again")
    reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return DownloadError(
        f"no network to the hub for {what} ({reason[:200]}); check the connection or HF_ENDPOINT"
    )


@contextmanager
def _shown(folder: Path, total: int, what: str, progress: Progress) -> Iterator[None]:
    """Report what grows in `folder` as progress towards `total` bytes."""
    before = sum(file_sizes(folder))

    def report() -> None:
        progress(min(sum(file_sizes(folder)) - before, total), total, what)

    with watching(report):
        yield
    progress(total, total, what)


def _require_room(repo: str, needed: int, folder: Path) -> None:
    free = free_bytes(folder)
    if needed > free:
        raise UnavailableError(
            f"{repo} does not fit the disk: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free at "
            f"{folder}; free some, or set HF_HOME to a folder on another disk"
        )


def _cache_folder(hub: Hub) -> Path:
    from huggingface_hub import constants

    return hub.cache or Path(constants.HF_HUB_CACHE)


def _repo_folder(hub: Hub, repo: str) -> Path:
    return _cache_folder(hub) / f"models--{repo.replace('/', '--')}"
