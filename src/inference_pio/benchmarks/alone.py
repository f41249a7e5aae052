"""One benchmark in a process of its own: what to do as JSON on standard input, the report as JSON on standard output.

python -m inference_pio.benchmarks.alone
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from inference_pio.benchmarks.records import read_settings
from inference_pio.benchmarks.six import chosen
from inference_pio.benchmarks.workload import Suite
from inference_pio.errors import InferencePIOError


def main(task: bytes) -> int:
    """Measure what `task` says; an expected error is one line on standard error."""
    try:
        asked: dict[str, Any] = msgspec.json.decode(task)
        suite = msgspec.convert(asked["suite"], Suite)
        [benchmark] = chosen([asked["benchmark"]])
        report = benchmark.measure(suite, read_settings(asked["settings"]))
    except InferencePIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    sys.stdout.buffer.write(msgspec.json.encode(report.as_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer.read()))
