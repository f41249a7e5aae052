"""What strangers' templates and images may do in the helper, and what they may not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inference_pio.children.beginning import import_paths
from inference_pio.children.frames import ProtocolError
from inference_pio.errors import ChatTemplateError, ImageError, UsageError
from inference_pio.helper import process
from inference_pio.helper.jobs import FromHelper, Pixels, Refused, Rendered
from inference_pio.helper.process import Helper
from inference_pio.multimodal.decoding import rgb
from inference_pio.multimodal.image import open_image
from inference_pio.security.reach import interpreter
from inference_pio.security.user import user_and_reading, worker_user
from inference_pio.text.rendering import render

HI = {"messages": [{"role": "user", "content": "hi"}], "bos_token": "<s>"}
SLOW = "{% for i in range(60) %}{{ ('ab' * 3500000)|sort|length }}{% endfor %}"
LARGE = (
    "{% set all = namespace(x=[]) %}"
    "{% for i in range(300) %}{% set all.x = all.x + ['a' * 7900000 ~ i] %}{% endfor %}"
)


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper()
    yield made
    made.close()


@pytest.mark.parametrize(
    "source",
    ["{{ bos_token }}{{ messages[0].content }}", "{% for m in messages %}{{ m.role|upper }}{% endfor %}", ""],
)
def test_it_renders_what_this_process_would(helper: Helper, source: str) -> None:
    assert helper.render(source, HI, "m") == render(source, HI, "m")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{{ raise_exception('no system role') }}", UsageError),
        ("{% for %}", ChatTemplateError),
        ("{{ ''.__class__.__mro__ }}", ChatTemplateError),
        ("{{ messages[5].x.y }}", ChatTemplateError),
        ("{% for i in range(2000000) %}{% endfor %}", ChatTemplateError),
    ],
)
def test_errors_are_the_same(helper: Helper, source: str, error: type[Exception]) -> None:
    with pytest.raises(error) as here:
        render(source, HI, "m")
    with pytest.raises(error) as there:
        helper.render(source, HI, "m")
    assert str(there.value) == str(here.value)


def test_time_is_bounded_by_the_kernel(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no limit inside the process would interrupt."""
    monkeypatch.setattr(process, "CPU_SECONDS", 1)
    with pytest.raises(ChatTemplateError, match="takes more than 1 s of processor time"):
        helper.render(SLOW, HI, "m")
    assert helper.render("{{ bos_token }}", HI, "m") == "<s>"


def test_memory_is_bounded(helper: Helper) -> None:
    with pytest.raises(ChatTemplateError, match="needs too much: MemoryError"):
        helper.render(LARGE, HI, "m")
    assert helper.render("{{ bos_token }}", HI, "m") == "<s>"


def test_one_that_was_ended_is_started_again(helper: Helper) -> None:
    assert helper.render("a", HI, "m") == "a"
    child: Any = helper._child
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert helper.render("b", HI, "m") == "b"


def test_it_outlives_the_thread_that_started_it(helper: Helper) -> None:
    thread = threading.Thread(target=helper.start)
    thread.start()
    thread.join()
    child: Any = helper._child
    assert helper.render("a", HI, "m") == "a"
    assert helper._child is child


def test_many_threads_share_it(helper: Helper) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda number: helper.render("{{ n }}", {"n": number}, "m"), range(40))
    assert list(texts) == [str(number) for number in range(40)]


def test_an_image_is_decoded_there(helper: Helper) -> None:
    pytest.importorskip("PIL")
    from support.images import FILES

    for name in ("PNG", "JPEG", "WEBP"):
        file = open_image(FILES[name])
        assert isinstance(file.data, bytes)
        asked = (file.data, "image", name, file.header.width, file.header.height)
        assert helper.rgb(*asked) == rgb(*asked)
    with pytest.raises(ImageError, match="broken"):
        helper.rgb(FILES["PNG"][:60], "image", "PNG", file.header.width, file.header.height)


def test_it_is_locked_in(helper: Helper) -> None:
    """Whatever a template or an image makes it do: by the kernel's word."""
    helper.start()
    child: Any = helper._child
    reads = user_and_reading(worker_user(), [*import_paths(), *interpreter()])[1]  # CAP_DAC_READ_SEARCH
    status = dict(line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
    assert {name: status[name].strip() for name in ("Seccomp", "NoNewPrivs", "CapEff", "Threads")} == {
        "Seccomp": "2",
        "NoNewPrivs": "1",
        "CapEff": f"{4 if reads else 0:016x}",
        "Threads": "1",
    }


class PretendedLine:
    """Says what it was told to."""

    def __init__(self, said: FromHelper | None) -> None:
        self._said = said

    def say(self, message: object) -> None: ...

    def hear(self) -> FromHelper | None:
        return self._said

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (Pixels(2, 2, bytes(12)), ProtocolError, "2 × 2 pixels of an image with 3 × 5"),
        (Pixels(3, 5, bytes(44)), ProtocolError, "3 × 5 pixels of an image with 3 × 5"),
        (Pixels(5, 5, bytes(45)), ProtocolError, "5 × 5 pixels"),
        (Rendered("x"), ProtocolError, "the helper said Rendered of an image"),
        (Refused("SystemExit", "x"), ProtocolError, "which there is not"),
        (None, ImageError, "it hung up"),
    ],
)
def test_what_it_says_is_checked(
    helper: Helper,
    monkeypatch: pytest.MonkeyPatch,
    said: FromHelper | None,
    error: type[Exception],
    words: str,
) -> None:
    """A stranger's image may have made it say anything."""
    helper.start()
    monkeypatch.setattr(helper, "_started", lambda: PretendedLine(said))
    with pytest.raises(error, match=words):
        helper.rgb(b"", "image", "PNG", 5, 3)


def test_its_patience_is_bounded(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PATIENCE", 1.0)
    helper.start()
    child: Any = helper._child
    os.kill(child.pid, signal.SIGSTOP)
    later = threading.Timer(10, os.kill, (child.pid, signal.SIGCONT))
    later.start()
    with pytest.raises(ChatTemplateError, match="takes more than 1 s"):
        helper.render("a", HI, "m")
    later.cancel()
    assert child.returncode == -signal.SIGKILL
    monkeypatch.undo()
    assert helper.render("b", HI, "m") == "b"
