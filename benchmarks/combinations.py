"""Every pair of techniques in one small model, through the engine: writes what the package knows of pairs, and the
tables of docs/optimisations.md.

    python benchmarks/combinations.py [--check]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from inference_pio.benchmarks.combinations import Base, PairRuns
from inference_pio.benchmarks.technique_page import renew
from inference_pio.conformance.subject import Subject
from inference_pio.optimizations.combinations import Combinations
from inference_pio.plugin.registry import default_registry
from inference_pio.progress_bar import Counter

_WINDOWED = "gemma3_text"
ROOT = Path(__file__).parent.parent
DATA = ROOT / "src/inference_pio/optimizations/combinations.json"
PAGE = ROOT / "docs/optimisations.md"


def bases(folder: Path) -> list[Base]:
    """Small llamas with biases that do nothing: dense, with one key/value head, with rounded weights, and with torch's
    attention; and, where its plugin is there, a small model whose layers have windows.
    """
    subject = Subject.of("llama", folder, collected={})
    tiny = {**subject.case.tiny["grouped"], "vocab_size": 4096, "num_hidden_layers": 4}
    tiny |= {"max_position_embeddings": 2048, "attention_bias": True, "mlp_bias": True}
    shapes = {"wide": tiny, "one-head": {**tiny, "num_key_value_heads": 1}}
    subject.case = replace(subject.case, tiny={**subject.case.tiny, **shapes})
    dense, one_head = (_with_idle_biases(subject.checkpoint(name)) for name in shapes)
    gathered = {"disable": ("paged_attention",)}
    return [
        Base("dense", dense),
        Base("one key/value head", one_head),
        Base("8 bits", dense, {"quantize": "int8"}),
        Base("4 bits", dense, {"quantize": "int4"}),
        Base("gathered decode", dense, gathered),
        Base("gathered prefill", dense, {"disable": ("flash_attention",)}),
        Base("one key/value head, gathered decode", one_head, gathered),
        Base("one key/value head, 8 bits", one_head, {"quantize": "int8"}),
        Base("8 bits, gathered decode", dense, {"quantize": "int8", **gathered}),
        *_windowed(folder),
    ]


def _with_idle_biases(path: Path) -> Path:
    """The same checkpoint, all of whose biases are zero: what can be removed without a trace."""
    for file in path.glob("*.safetensors"):
        tensors = load_file(file)
        save_file(
            {name: tensor.zero_() if name.endswith(".bias") else tensor for name, tensor in tensors.items()},
            file,
            {"format": "pt"},
        )
    return path


def _windowed(folder: Path) -> list[Base]:
    if _WINDOWED not in default_registry().names():
        return []
    subject = Subject.of(_WINDOWED, folder, collected={})
    tiny = {**subject.case.tiny["five-to-one"], "vocab_size": 4096, "max_position_embeddings": 2048}
    shapes = {"one": {**tiny, "num_key_value_heads": 1}, "two": {**tiny, "num_key_value_heads": 2}}
    subject.case = replace(subject.case, tiny={**subject.case.tiny, **shapes})
    one, two = (subject.checkpoint(name) for name in shapes)
    return [
        Base("windows", two),
        Base("windows, one key/value head", one),
        Base("windows, 8 bits", two, {"quantize": "int8"}),
        Base("windows, gathered prefill", two, {"disable": ("flash_attention",)}),
    ]


def measure(folder: Path) -> Combinations:
    """All pairs; files of models go into `folder`."""
    os.environ["INFERENCE_PIO_HOME"] = str(folder / "home")
    small = bases(folder)
    gc.freeze()  # closing a model collects garbage: what lies here by now is none, and looking through it takes seconds
    with Counter("pairs") as counter:
        return PairRuns(small, counter.tell).all()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing: say what has failed")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    failed = {name: pair for name, pair in found.pairs.items() if pair.outcome == "failed"}
    for name, pair in failed.items():
        print(f"{name}: {pair.reason}")
    if not check:
        DATA.write_bytes(found.encode())
        PAGE.write_text(renew(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
