"""A worker in a real process, locked in as any, whose engine is a table of tokens; it goes wrong where `FAULT` says.

    FAULT=segv@decode

The phases are idle (asked for a sign of life without a request), load, prefill (when the last of `EXPECTED` requests is
there), decode (in the middle of answers) and close.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import queue
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from inference_pio.children.frames import MOST_BYTES
from inference_pio.children.line import Line
from inference_pio.given import give, open_to_read
from inference_pio.outputs import RequestMetrics
from inference_pio.security.confine import confine
from inference_pio.worker.messages import (
    Abort,
    Answered,
    Ask,
    Boot,
    Close,
    Ended,
    Failed,
    FromParent,
    FromWorker,
    Generate,
    Go,
    Hello,
    Load,
    Loaded,
    Piece,
    Pieces,
    Ping,
    Planned,
    Pong,
    Progress,
)
from support.pretended_worker import VOCAB, token

EXPECTED = 3
_STEP_SECONDS = 0.002
_INTO_AN_ANSWER = 4
NOISE = "\x1b[31mnoise\x1b[0m \u202e\x07" * 10 + "\n"


def main(descriptor: int) -> None:
    connected = socket.socket(fileno=descriptor)
    line: Line[FromParent, FromWorker] = Line(connected, FromParent)
    boot = line.hear()
    assert isinstance(boot, Boot)
    line.bell = boot.bell
    confine(boot.confinement, boot.parent)
    give(boot.files)
    fault, _, phase = os.environ.get("FAULT", "").partition("@")
    Engine(line, connected, fault, phase, list(boot.files)).run()


class Engine:
    def __init__(
        self,
        line: Line[FromParent, FromWorker],
        connected: socket.socket,
        fault: str,
        phase: str,
        files: list[str],
    ) -> None:
        self._line, self._socket, self._fault, self._phase = line, connected, fault, phase
        self._mapped = [mmap.mmap(open_to_read(Path(file)), 0, prot=mmap.PROT_READ) for file in files]
        self._running: dict[int, tuple[Generate, dict[int, int]]] = {}
        self._steps = self._came = 0
        self._heard: queue.SimpleQueue[FromParent | None] = queue.SimpleQueue()

    def run(self) -> None:
        self._line.say(Hello(()))
        threading.Thread(target=self._hear, daemon=True).start()
        while True:
            try:
                message = self._heard.get(timeout=_STEP_SECONDS if self._running else None)
            except queue.Empty:
                self._step()
                continue
            if message is None or isinstance(message, Close):
                self._at("close")
                return
            self._take(message)

    def _hear(self) -> None:
        while (message := self._line.hear()) is not None:
            self._heard.put(message)
        self._heard.put(None)

    def _take(self, message: FromParent) -> None:
        if isinstance(message, Load):
            self._line.say(Planned({}))
        elif isinstance(message, Go):
            self._at("load")
            self._line.say(Loaded(VOCAB, 100, False))
        elif isinstance(message, Generate):
            done = message.done or [[]] * message.params["n"]
            places = {index: len(told) for index, told in enumerate(done) if told is not None}
            self._running[message.request] = (message, places)
            self._came += 1
            if self._came == EXPECTED:
                self._at("prefill")
        elif isinstance(message, Abort):
            self._running.pop(message.request, None)
        elif isinstance(message, Ask):
            self._line.say(Answered(message.number, "words"))
        elif isinstance(message, Ping):
            if not self._running:
                self._at("idle")
            self._line.say(Pong(message.number, self._steps, self._steps, 0, bool(self._running)))

    def _step(self) -> None:
        self._steps += 1
        if any(place == _INTO_AN_ANSWER for _, places in self._running.values() for place in places.values()):
            self._at("decode")
        pieces, over = [], []
        for number, (asked, places) in self._running.items():
            for index, place in list(places.items()):
                last = place + 1 == asked.params["max_tokens"]
                told = [token(asked.params["seed"], index, place)]
                pieces.append(Piece(number, index, place, told, "", "length" if last else None))
                places[index] += 1
                if last:
                    del places[index]
            if not places:
                over.append(number)
        self._line.say(Pieces(pieces))
        for number in over:
            del self._running[number]
            self._line.say(Ended(number, RequestMetrics(0.0, 0.0, 0)))

    def _at(self, phase: str) -> None:
        if phase == self._phase and self._fault:
            fault, self._fault = self._fault, ""
            FAULTS[fault](self)

    # Faults ------------------------------------------------------------------------------------------------------

    def segv(self) -> None:
        ctypes.string_at(0)

    def own_memory(self) -> None:
        """A megabyte after the other, touched."""
        kept = []
        while True:
            kept.append(b"x" * (1 << 20))

    def shared_memory(self) -> None:
        """What no limit of the process's own counts."""
        kept = mmap.mmap(-1, 2 << 30)
        while True:
            kept.write(b"x" * (1 << 20))
            time.sleep(0.001)

    def loop(self) -> None:
        while True:
            pass

    def garbage(self) -> None:
        self._socket.sendall(struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1")

    def over(self) -> None:
        self._socket.sendall(struct.pack("<I", MOST_BYTES + 1) + bytes(1 << 16))

    def claim(self) -> None:
        self._socket.sendall(struct.pack("<I", 1 << 30))

    def noise(self) -> None:
        for _ in range(1 << 12):
            sys.stdout.write(NOISE)
            sys.stderr.write(NOISE)
        sys.stdout.flush()

    def noise_and_exit(self) -> None:
        self.noise()
        os._exit(3)

    def gone_file(self) -> None:
        """Says that it is about to read what is mapped, and reads it once somebody has emptied the file."""
        file = self._mapped[0]
        while True:
            file[-1]
            time.sleep(_STEP_SECONDS)

    def words(self) -> None:
        """Words for people, each of them too many and not of one line."""
        self._line.say(Progress(1, 2, NOISE * 100))
        self._line.say(Failed("ResourceError", NOISE * 100))

    def hang_up(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self.loop()


FAULTS: dict[str, Callable[[Engine], object]] = {
    "segv": Engine.segv,
    "abrt": lambda _: os.abort(),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "own memory": Engine.own_memory,
    "shared memory": Engine.shared_memory,
    "exit 0": lambda _: os._exit(0),
    "loop": Engine.loop,
    "garbage": Engine.garbage,
    "over": Engine.over,
    "claim": Engine.claim,
    "noise": Engine.noise,
    "noise, exit 3": Engine.noise_and_exit,
    "gone file": Engine.gone_file,
    "words": Engine.words,
    "hang up": Engine.hang_up,
}
