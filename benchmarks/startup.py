"""How long a newcomer waits: from the start of the process to the first character of the answer.

    python benchmarks/startup.py [--model smollm2-135m-instruct] [--runs 5]

Whole processes, started one after the other; the first one only warms the file cache. `import` is a process that
imports the package and does nothing, less one that does nothing at all.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def first_byte_seconds(command: list[str]) -> float:
    """Seconds until `command` writes to stdout (or ends); it is then left to finish."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    question = ["What is the capital of France?", "--temperature", "0", "--quiet"]
    code = "from inference_pio.cli.main import main; main()"
    answer = [sys.executable, "-c", code, "run", options.model, *question]
    nothing, package = [sys.executable, "-c", "pass"], [sys.executable, "-c", "import inference_pio"]
    medians = {}
    for name, command in (("first token", answer), ("nothing", nothing), ("package", package)):
        seconds = [first_byte_seconds(command) for _ in range(options.runs + 1)][1:]
        medians[name] = statistics.median(seconds)
        print(
            f"{name}: median {medians[name]:.3f} s ({min(seconds):.3f} - {max(seconds):.3f}, {options.runs} runs)"
        )
    print(f"import inference_pio: {medians['package'] - medians['nothing']:.3f} s")


if __name__ == "__main__":
    main()
