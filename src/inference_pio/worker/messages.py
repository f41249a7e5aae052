"""What a parent and its worker say to each other: closed types, and nothing that names code.

A parent says Boot, Load, Go, Rows, Generate, Abort, Ask, Ping and Close; a worker Hello, Progress, Planned, Loaded,
Pieces, Ended, Answered, Failed and Pong. `request` numbers are the parent's: no name of a client's crosses.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from inference_pio.outputs import (
    CacheExplanation,
    FinishReason,
    RequestMetrics,
    TokenLogprobs,
)
from inference_pio.plugin.registry import External
from inference_pio.security.confine import Confinement, Lock

Plain = str | int | float | bool | None


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag=str.lower):
    pass


# From the parent -------------------------------------------------------------------------------------------------


class Boot(_Message, frozen=True):
    """The first word. `files` are open for the worker, path -> descriptor; `parent` is who must outlive it; `bell` is
    the descriptor of an event that says that something was said.
    """

    confinement: Confinement
    files: dict[str, int]
    parent: int
    bell: int = -1


class Load(_Message, frozen=True):
    """Which model, how; `config` and `options` are what a caller named. The worker plans, and waits for Go.

    memory_gb, cpu_percent, disk_space_gb, gpu_memory_gb  limits to plan within
    external                                              the plugin of others that runs it; None: a built-in one
    """

    model: str
    plugin: str | None
    config: dict[str, Any]
    options: dict[str, Any]
    profile: str | None
    tuned: bool
    memory_gb: float | None = None
    cpu_percent: float | None = None
    disk_space_gb: float | None = None
    gpu_memory_gb: float | None = None
    external: External | None = None


class Go(_Message, frozen=True):
    """Load what was planned."""


class Picture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image of a prompt; `where` names it in errors. Its rows of RGB, 8 bits each, go ahead of the message that it
    is a part of, in Rows: on the wire there are none here.
    """

    where: str
    height: int
    width: int
    rows: bytes = b""


class Rows(_Message, frozen=True):
    """The next bytes of the pictures of the request or question of this number, which follows, in order."""

    number: int
    data: bytes


class Generate(_Message, frozen=True):
    """One request. `done` are tokens of each answer that the caller has already (None: all of it): the worker goes on
    behind them.

    formatted  `text` is what a chat template made of Ask "write": special tokens are in it
    whole      nothing has to come before all answers have ended
    chat       the answer is read as a chat's, with `tools` where there are any
    """

    request: int
    params: dict[str, Any]
    text: str | None = None
    token_ids: list[int] | None = None
    formatted: bool = False
    images: list[Picture] = []
    whole: bool = False
    chat: bool = False
    tools: list[dict[str, Any]] | None = None
    done: list[list[int] | None] = []


class Abort(_Message, frozen=True):
    request: int


class Ask(_Message, frozen=True):
    """A question with one answer."""

    number: int
    about: Literal[
        "tokenize",
        "detokenize",
        "write",
        "encode",
        "memory",
        "compute",
        "disk",
        "performance",
        "techniques",
        "optimize",
        "fit",
    ]
    given: dict[str, Any] = {}
    images: list[Picture] = []


class Ping(_Message, frozen=True):
    number: int


class Close(_Message, frozen=True):
    """Stop, and exit."""


# From the worker -------------------------------------------------------------------------------------------------


class Hello(_Message, frozen=True):
    """How it locked itself in. The parent believes its own canary, and compares."""

    locks: tuple[Lock, ...]


class Progress(_Message, frozen=True):
    done: int
    total: int
    what: str


class Taken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that a model does without, and the least memory it needed before and after."""

    technique: str
    reason: str
    bytes_before: int
    bytes_after: int


class Fitting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was done to make a plan fit; its figures as it was asked for, and as it is."""

    applied: list[Taken] = []
    left_out: dict[str, str] = {}
    before: dict[str, Plain] = {}
    after: dict[str, Plain] = {}
    fits: bool = True


class Planned(_Message, frozen=True):
    """The configuration's numbers and words, and the plan; nothing large is allocated so far."""

    config: dict[str, Plain]
    fitting: Fitting = Fitting()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Loaded(_Message, frozen=True):
    vocab_size: int
    max_model_len: int
    has_chat_template: bool
    sees: bool = False


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A `ChatEvent`: one type on the wire for what are five here (`worker/events.py`)."""

    kind: Literal["reasoning", "content", "call", "arguments", "end"]
    text: str = ""
    index: int = 0
    id: str = ""


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What one step added to one answer; `position` counts its tokens before."""

    request: int
    index: int
    position: int
    token_ids: list[int]
    text: str
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    logprobs: list[TokenLogprobs] | None = None
    explanation: CacheExplanation | None = None
    events: list[Event] = []


class Pieces(_Message, frozen=True):
    of: list[Piece]


class Ended(_Message, frozen=True):
    """Every answer of a request has ended."""

    request: int
    metrics: RequestMetrics


class Answered(_Message, frozen=True):
    number: int
    value: Any = None


class Failed(_Message, frozen=True):
    """An error by its name in `errors.py`: of a request, of a question, or (both None) of what came before Loaded."""

    error: str
    text: str
    request: int | None = None
    number: int | None = None


class Pong(_Message, frozen=True):
    """`steps` of the engine and `tokens` of all of them so far; `under_way`: tokens of the one that runs; `busy`: there
    is work.
    """

    number: int
    steps: int
    tokens: int
    under_way: int
    busy: bool


FromParent = Boot | Load | Go | Rows | Generate | Abort | Ask | Ping | Close
FromWorker = Hello | Progress | Planned | Loaded | Pieces | Ended | Answered | Failed | Pong
