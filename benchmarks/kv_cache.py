"""What keys and values in whole numbers take, cost and bring: bytes, divergence, decode.

    python benchmarks/kv_cache.py [--models smollm2-135m-instruct,qwen2.5-coder-1.5b-instruct] [--kinds int8,int4]
        [--tokens 2048] [--context 4096] [--decode 32] [--rounds 5] [--text FILE] [--layers] [--json]

Bytes: of one token's keys and values in all layers, by those of bfloat16.
KL: the mean over windows of 512 tokens of a text, in nats per token, of a model in float32 throughout from the same
model over other caches; and the share of tokens whose most likely successor is the same. `--layers` has one layer at
a time in whole numbers, the others in float32: which layers spoil a kind.
Decode: time of `--decode` tokens behind a prompt of `--context`, weights as the file has them, by that of the same
tokens over a bfloat16 cache. All kinds take turns in each round, with one prompt that is computed once and found again
from then on; the ratio is the median of the rounds' ratios, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.scoring import Scorer
from inference_pio.benchmarks.workload import Workload
from inference_pio.cache.specs import CacheSpec, with_kv_dtype
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import serving_of
from inference_pio.runtime.opened import open_model

MODELS = "smollm2-135m-instruct,qwen2.5-coder-1.5b-instruct"
TEXT = Path(__file__).parents[1] / "tests/data/text/coriolanus.txt"
DTYPES = {"bfloat16": torch.bfloat16, "int8": torch.int8, "int4": torch.uint8}
WINDOW = 512


@dataclass(frozen=True)
class Moved:
    """How far a kind of cache moves a model from float32: KL in nats per token, share of equal best tokens."""

    kl: float
    same_best: float


@dataclass(frozen=True)
class Decode:
    """Seconds of a token, median; its share of bfloat16's: median of the rounds' ratios, smallest, largest."""

    seconds: float
    ratio: float
    least: float
    most: float


def specs_of(loaded: LoadedModel, dtype: torch.dtype, layer: int | None = None) -> tuple[CacheSpec, ...]:
    """The model's own, with keys and values in `dtype`: in all layers, or in one."""
    return with_kv_dtype(
        serving_of(loaded.model).cache_specs, lambda one: dtype if layer in (None, one) else None
    )


def bytes_per_token(specs: Sequence[CacheSpec]) -> int:
    return sum(spec.bytes_per_token() for spec in specs)


@torch.inference_mode()
def moved(
    loaded: LoadedModel, windows: Sequence[Tensor], variants: dict[str, tuple[CacheSpec, ...]]
) -> dict[str, Moved]:
    """Each variant against the caches that the model has."""
    kl: dict[str, list[Tensor]] = {name: [] for name in variants}
    same: dict[str, list[Tensor]] = {name: [] for name in variants}
    for tokens in windows:
        ids = tokens.tolist()
        exact = [logits.log_softmax(-1) for logits in Scorer(loaded, len(ids)).logits(ids)]
        for name, specs in variants.items():
            for log_p, logits in zip(exact, Scorer(loaded, len(ids), specs).logits(ids), strict=True):
                log_q = logits.log_softmax(-1)
                kl[name].append((log_p.exp() * (log_p - log_q)).sum(-1))
                same[name].append(log_p.argmax(-1) == log_q.argmax(-1))
    return {
        name: Moved(torch.cat(kl[name]).mean().item(), torch.cat(same[name]).double().mean().item())
        for name in variants
    }


def decode(plugin: str, model: str, kinds: Sequence[str], work: Workload, rounds: int) -> dict[str, Decode]:
    """Each kind's time of a token, by bfloat16's."""
    names = ["bfloat16", *kinds]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        loaded = {
            name: stack.enter_context(LoadedModel(plugin, model, [work], kv_cache_dtype=name))
            for name in names
        }
        for one in range(rounds + 1):
            for name in names if one % 2 else reversed(names):
                times = loaded[name].token_times(work, 0)
                if one:  # the first round warms up
                    seconds[name].append((times[-1] - times[0]) / (len(times) - 1))
    found = {}
    for name in kinds:
        ratios = [ours / theirs for ours, theirs in zip(seconds[name], seconds["bfloat16"], strict=True)]
        middle = statistics.median(seconds[name])
        found[name] = Decode(middle, statistics.median(ratios), min(ratios), max(ratios))
    return found


def measure(model: str, text: str, asked: argparse.Namespace) -> dict[str, object]:
    kinds = asked.kinds.split(",")
    plugin = plugin_of(model)
    found: dict[str, object] = {"model": model}
    if asked.tokens:
        sizes = [Workload(1, 64, 64)]
        with LoadedModel(
            plugin, model, sizes, dtype="float32", kv_cache_dtype="float32", text=True
        ) as loaded:
            ids = torch.tensor(loaded.plugin.tokenize(text)[: asked.tokens])
            variants = {name: specs_of(loaded, DTYPES[name]) for name in ("bfloat16", *kinds)}
            half = bytes_per_token(variants["bfloat16"])
            found["bytes"] = {name: bytes_per_token(specs) / half for name, specs in variants.items()}
            if asked.layers:
                layers = range(len(serving_of(loaded.model).cache_specs))
                variants |= {
                    f"{name}, layer {layer}": specs_of(loaded, DTYPES[name], layer)
                    for name in kinds
                    for layer in layers
                }
            found["moved"] = {
                name: asdict(one) for name, one in moved(loaded, ids.split(WINDOW), variants).items()
            }
    if asked.rounds:
        work = Workload(asked.context, asked.decode + 1)
        found["decode"] = {
            name: asdict(one) for name, one in decode(plugin, model, kinds, work, asked.rounds).items()
        }
    return found


def plugin_of(model: str) -> str:
    opened = open_model(model, RuntimeOptions())
    try:
        return default_registry().for_checkpoint(opened.raw, str(opened.source.path)).name
    finally:
        opened.checkpoint.close()


def show(found: dict[str, object]) -> None:
    print(found["model"])
    for part in ("bytes", "moved", "decode"):
        figures = found.get(part, {})
        assert isinstance(figures, dict)
        for name, one in figures.items():
            values = one if isinstance(one, dict) else {"by bfloat16": one}
            print(f"  {part:8}{name:20}" + "  ".join(f"{key} {value:.5f}" for key, value in values.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--kinds", default="int8,int4")
    parser.add_argument("--tokens", type=int, default=2048, help="of the text; 0: no KL")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="0: no decode")
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    text = asked.text.read_text(encoding="utf-8")
    found = [measure(model, text, asked) for model in asked.models.split(",")]
    if asked.json:
        print(json.dumps(found))
        return
    for one in found:
        show(one)


if __name__ == "__main__":
    main()
