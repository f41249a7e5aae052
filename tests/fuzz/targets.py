"""What is fuzzed: one function per reader of bytes that strangers write.

Each takes any bytes. Errors of the class that the reader documents end it, in one line of words; whatever else comes
out is a defect, and so is a wrong answer about bytes that are let in.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec

from inference_pio.children.crossing import error_of
from inference_pio.children.frames import FrameReader, ProtocolError, frame
from inference_pio.errors import InferencePIOError, ModelFileError, PluginError
from inference_pio.helper.jobs import FromHelper, ToHelper
from inference_pio.loader.gguf import GGUFFile
from inference_pio.loader.safetensors import SafetensorsFile
from inference_pio.loader.safetensors_index import read_index
from inference_pio.outputs import ChatEvent, ContentDelta, ReasoningDelta, ToolCallArguments, ToolCallStart
from inference_pio.packages.wheel import Wheel, read_wheel
from inference_pio.plugin.facts import ReasoningFormat
from inference_pio.plugin.registry import default_registry
from inference_pio.text.answer import AnswerParser, joined
from inference_pio.text.calls import SYNTAXES
from inference_pio.worker.events import read
from inference_pio.worker.messages import Failed, FromParent, FromWorker, Pieces
from support.plugin_wheels import INFO, record_of
from support.pretended_worker import World, request

_READ_BYTES = 1 << 16
SCHEMAS: dict[str, dict[str, Any]] = {
    "write": {"path": {"type": "string"}, "lines": {"type": "integer"}, "note": {"type": ["string", "null"]}},
    "now": {},
}


@contextmanager
def _refusing(kind: type[InferencePIOError]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        _is_one_line(error)


def _is_one_line(error: InferencePIOError) -> None:
    assert str(error).isprintable(), f"not one line: {error}"


@contextmanager
def _file(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path


# Checkpoints -----------------------------------------------------------------------------------------------------


def _safetensors(data: bytes) -> None:
    with _file("model.safetensors", data) as path:
        with _refusing(ModelFileError), SafetensorsFile(path) as opened:
            _holds_what_it_says(opened, data)
        with _refusing(ModelFileError):
            assert all(shard.parent == path.parent for shard in read_index(path)), (
                "a shard that lies elsewhere"
            )


def _gguf(data: bytes) -> None:
    with _file("model.gguf", data) as path, _refusing(ModelFileError), GGUFFile(path) as opened:
        _holds_what_it_says(opened, data)
        spans = b"".join(opened.raw_pairs(()))
        assert spans == data[24 : 24 + len(spans)], "metadata lies elsewhere"


def _holds_what_it_says(opened: SafetensorsFile | GGUFFile, data: bytes) -> None:
    assert sum(info.nbytes for info in opened.tensors.values()) <= len(data), "more than there is"
    for name, info in opened.tensors.items():
        assert opened.first_bytes(name, 8) in data
        if info.nbytes <= _READ_BYTES:
            assert tuple(opened.read(name).shape) == info.shape


# Messages --------------------------------------------------------------------------------------------------------


def _to_a_child(data: bytes) -> None:
    _heard(data, FromParent)
    _heard(data, ToHelper)


def _from_a_child(data: bytes) -> None:
    _heard(data, FromHelper)
    world = _world()
    for message in _heard(data, FromWorker):
        with _refusing(ProtocolError):
            if isinstance(message, Failed):
                _is_one_line(error_of(message.error, message.text))
            if isinstance(message, Pieces):
                assert all(read(event) for piece in message.of for event in piece.events)
            world.hear(message)


def _world() -> World:
    """A worker that has two requests."""
    world = World()
    world.start()
    for number in (1, 2):
        world.supervisor.submit(request(number, answers=number)[0], world.now)
    return world


def _heard(data: bytes, messages: UnionType) -> list[Any]:
    """The first byte says how long the pieces are in which the rest comes a second time."""
    size, stream = data[0] + 1 if data else 1, data[1:]
    found, error = _out_of([stream], messages)
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    again, other_error = _out_of(pieces, messages)
    # Compared as they are sent: a number that is none does not equal itself.
    assert (_sent(found), error) == (_sent(again), other_error), "it depends on the pieces"
    assert _sent(_out_of([_sent(found)], messages)[0]) == _sent(found), "it comes back as something else"
    return found


def _sent(messages: list[msgspec.Struct]) -> bytes:
    return b"".join(map(frame, messages))


def _out_of(pieces: list[bytes], messages: UnionType) -> tuple[list[Any], str]:
    reader: FrameReader[Any] = FrameReader(messages)
    found: list[Any] = []
    try:
        for piece in pieces:
            for message in reader.feed(piece):
                found.append(message)
    except ProtocolError as error:
        _is_one_line(error)
        return found, str(error)
    return found, ""


# Answers ---------------------------------------------------------------------------------------------------------


@cache
def _reasoning() -> list[ReasoningFormat | None]:
    """How built-in architectures mark thoughts."""
    registry = default_registry()
    plugins = [registry.create(name) for name in registry.names()]
    formats = [plugin.chat_format(plugin.config_class()).reasoning for plugin in plugins]
    return [None, *{(marks.start, marks.end): marks for marks in formats if marks is not None}.values()]


def _answer(syntax: str, data: bytes) -> None:
    """The first byte says how thoughts are marked, the second how long the pieces are; the rest is the text."""
    how, size = (data[0], data[1] % 32 + 1) if len(data) > 1 else (0, 1)
    text = data[2:].decode(errors="replace")
    marks = _reasoning()[how // 2 % len(_reasoning())]
    thinking = marks is not None and how % 2 == 1

    def told(pieces: list[str]) -> list[ChatEvent]:
        numbers = count()
        parser = AnswerParser(
            marks,
            thinking=thinking,
            syntax=SYNTAXES[syntax],  # type: ignore[index]
            schemas=SCHEMAS,
            new_id=lambda: f"call_{next(numbers)}",
        )
        return joined([*(event for piece in pieces for event in parser.feed(piece)), *parser.finish()])

    whole = told([text])
    assert told([text[start : start + size] for start in range(0, len(text), size)]) == whole
    for event in whole:
        if isinstance(event, ToolCallArguments):
            assert isinstance(json.loads(event.text), dict)
            event.text.encode()
    if not any(isinstance(event, ToolCallStart) for event in whole):
        said = "".join(event.text for event in whole if isinstance(event, ReasoningDelta | ContentDelta))
        assert _bare(said, marks) == _bare(text, marks), "text is lost, or made up"


def _bare(text: str, marks: ReasoningFormat | None) -> str:
    """Without space, and what marks thoughts: also where only what was between them kept its halves apart."""
    both = (marks.start, marks.end) if marks else ()
    while found := [mark for mark in both if mark in text]:
        text = text.replace(found[0], "")
    return "".join(text.split())


# Packages --------------------------------------------------------------------------------------------------------


def _wheel(data: bytes) -> None:
    """An archive; or files of one, as name, NUL, content, NUL, …, with the list that fits."""
    with _file("weather-1.0-py3-none-any.whl", data) as path:
        if not data.startswith(b"PK"):
            _pack(path, data)
        with _refusing(PluginError):
            _unpacks(read_wheel(path))


def _pack(path: Path, data: bytes) -> None:
    parts = [part.decode(errors="replace") for part in data.split(b"\0")]
    files = dict(zip(parts[::2], parts[1::2], strict=False))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{INFO}/RECORD": record_of(files)}.items():
            archive.writestr(zipfile.ZipInfo(name), text)


def _unpacks(wheel: Wheel) -> None:
    """Its files lie below packages of its own, and nothing else comes out of it."""
    folder = wheel.path.parent / "unpacked"
    folder.mkdir()
    with _refusing(PluginError):
        wheel.unpack(folder)
        found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
        assert found == set(wheel.files)
        assert not [name for name in found if name.endswith(".pth") or "customize" in name]
    assert sorted(path.name for path in wheel.path.parent.iterdir()) == ["unpacked", wheel.path.name]


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "safetensors": _safetensors,
    "gguf": _gguf,
    "to_a_child": _to_a_child,
    "from_a_child": _from_a_child,
    **{syntax: partial(_answer, syntax) for syntax in SYNTAXES},
    "wheel": _wheel,
}
