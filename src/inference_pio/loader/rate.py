"""How fast something may be downloaded: one bucket for all transfers that share it, and its place in the hub's client.

huggingface_hub has one HTTP client for the whole process. A request says by a header which bucket its answer comes
through; the header is taken off before anything is sent.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from inference_pio.security.levels import ResourceLimits

if TYPE_CHECKING:
    import httpx2

_BITS = 8
_BURST_SECONDS = 0.02
_HEADER = "x-inference-pio-bucket"
# What huggingface_hub answers with transfers of its own, past its HTTP client.
_OTHER_WAY = "x-xet-hash"

_buckets: WeakValueDictionary[str, Bucket] = WeakValueDictionary()
_names = map(str, itertools.count(1))


class Bucket:
    """So many megabits a second, by whoever shares it; any thread may take."""

    def __init__(self, mbps: float) -> None:
        self._bytes_per_second = mbps * 1e6 / _BITS
        self._lock = threading.Lock()
        self._paid = 0.0  # until when what was taken so far is paid for
        self._name = next(_names)
        _buckets[self._name] = self

    @classmethod
    def of(cls, limits: ResourceLimits | None) -> Bucket | None:
        """For all that is downloaded within limits; None where none is set, or nothing may be."""
        if limits is None or not limits.network_bandwidth_mbps:
            return None
        return cls(limits.network_bandwidth_mbps)

    def owe(self, count: int) -> float:
        """Take bytes that have come already; for how many seconds no more may."""
        with self._lock:
            now = time.monotonic()
            self._paid = max(self._paid, now - _BURST_SECONDS) + count / self._bytes_per_second
            return max(0.0, self._paid - now)

    def take(self, count: int) -> None:
        """Wait until so many bytes are paid for."""
        time.sleep(self.owe(count))

    def headers(self) -> dict[str, str]:
        """For requests of huggingface_hub whose answers are to come through it."""
        _install()
        return {_HEADER: self._name}


def _install() -> None:
    """Into the client that huggingface_hub has or makes later; a factory that somebody set stays, inside of this."""
    from huggingface_hub.utils import _http

    if not isinstance(_http._GLOBAL_CLIENT_FACTORY, _Clients):
        _http.set_client_factory(_Clients(_http._GLOBAL_CLIENT_FACTORY))


class _Clients:
    def __init__(self, make: Callable[[], httpx2.Client]) -> None:
        self._make = make

    def __call__(self) -> httpx2.Client:
        client = self._make()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], _named],
            "response": [*hooks["response"], _slowed],
        }
        return client


def _named(request: httpx2.Request) -> None:
    name = request.headers.pop(_HEADER, None)
    if name is not None:
        request.extensions[_HEADER] = _buckets[name]


def _slowed(response: httpx2.Response) -> None:
    bucket = response.request.extensions.get(_HEADER)
    if bucket is not None:
        response.headers.pop(_OTHER_WAY, None)
        response.stream = _stream(response.stream, bucket)


def _stream(inner: Any, bucket: Bucket) -> httpx2.SyncByteStream:
    import httpx2

    class Slowed(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for chunk in inner:
                bucket.take(len(chunk))
                yield chunk

        def close(self) -> None:
            inner.close()

    return Slowed()
