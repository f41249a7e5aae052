"""Run as a program: fuzzes one target, until its time is over or an input is a defect.

    python tests/fuzz/run.py gguf -max_total_time=600 FOLDER tests/fuzz/corpus/gguf

The rest of the line is libFuzzer's: new inputs go to the first folder, those that reach more than the others.
"""

from __future__ import annotations

import random
import resource
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import atheris
import msgspec

sys.path[0] = str(Path(__file__).parents[1])
_WATCHED = ["inference_pio.loader", "inference_pio.children", "inference_pio.worker", "inference_pio.text"]
with atheris.instrument_imports(
    include=[*_WATCHED, "inference_pio.packages", "zipfile", "configparser", "email", "json"]
):
    from fuzz.targets import TARGETS

# Of memory, beyond the most that it has had, which Linux passes on from whoever starts a process;
# of one input.
_MOST_MB = 1024 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
_LIMITS = [f"-rss_limit_mb={_MOST_MB}", "-timeout=5", "-max_len=4096", "-seed=1"]
_LEAVES: list[Any] = [
    None,
    True,
    -1,
    2**63,
    2**64 - 1,
    0.5,
    float("nan"),
    "",
    "x",
    b"x",
    [],
    {},
    "Answered",
    "content",
]
_MOST_DEPTH = 40


def _mutated_messages(data: bytes, most: int, seed: int) -> bytes:
    """A message of the stream as another one: few changes of bytes leave msgpack what it is."""
    chance = random.Random(seed)
    bodies = list(_bodies(data[1:]))
    if not bodies or chance.random() < 0.3:
        return bytes(atheris.Mutate(data, most))
    at = chance.randrange(len(bodies))
    try:
        changed = _changed(msgspec.msgpack.decode(bodies[at]), chance)
        bodies[at : at + 1] = [msgspec.msgpack.encode(changed)] * chance.choice([0, 1, 1, 1, 1, 2])
    except (ValueError, TypeError, OverflowError, RecursionError):
        return bytes(atheris.Mutate(data, most))
    chance.random() < 0.2 and chance.shuffle(bodies)
    return (data[:1] + b"".join(struct.pack("<I", len(body)) + body for body in bodies))[:most]


def _bodies(stream: bytes) -> Iterator[bytes]:
    while len(stream) >= 4:
        end = 4 + int.from_bytes(stream[:4], "little")
        yield stream[4:end]
        stream = stream[end:]


def _changed(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """Somewhere in it something else."""
    if isinstance(value, (dict, list)) and value and depth < _MOST_DEPTH and chance.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        at = chance.choice(keys)
        value[at] = _changed(value[at], chance, depth + 1)
        if chance.random() < 0.1:
            del value[at]
        return value
    if isinstance(value, dict) and chance.random() < 0.3:
        return {**value, chance.choice(["is", "request", "number", "x"]): chance.choice(_LEAVES)}
    if isinstance(value, list) and chance.random() < 0.3:
        return [*value, chance.choice(_LEAVES)]
    if isinstance(value, int) and chance.random() < 0.7:
        return value + chance.choice([-1, 1, 2])
    return [value] if chance.random() < 0.1 else chance.choice(_LEAVES)


def main() -> None:
    target, *options = sys.argv[1:]
    more = {"custom_mutator": _mutated_messages} if "child" in target else {}
    # To merge is to have a shell start this program again by what it is called here.
    itself = f"{sys.executable} {Path(__file__).resolve()} {target}"
    atheris.Setup([itself, *_LIMITS, *options], TARGETS[target], **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
