"""What the commands that measure the table share: options, and progress."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """Which rows, how often, with how many threads, and where to."""
    parser.add_argument("--rows", default="", help="rows of the table, or how their names begin (qwen)")
    parser.add_argument("--rounds", type=_count, default=5, help="timed rounds per row, after one to warm up")
    parser.add_argument("--threads", type=_count, default=0, help="that compute (default: the cores)")
    parser.add_argument("--quick", action="store_true", help="small workloads: does it run at all?")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--record", action="store_true", help="keep the result in docs/benchmarks")


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; ends the program with a line of why where they contradict each other."""
    options = parser.parse_args(arguments)
    if options.quick and options.record:
        parser.error("--quick says nothing about speed: there is nothing to --record")
    return options


def say(line: str) -> None:
    """Progress, beside the result and not in it."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 up, got {text!r}")
    return int(text)
