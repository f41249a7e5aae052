"""Whether weights that stay in blocks say what the same blocks say in float32.

    python benchmarks/packed_accuracy.py [--kinds Q4_1,Q8_0] [--models qwen2.5-coder-1.5b-instruct] [--text FILE]

Perplexity on a text: SmolLM2-135M-Instruct, its matrices encoded as each kind of blocks, and whole files as they are
(their kinds cannot be encoded here: K-quants want rows of multiples of 256, and SmolLM2's have 576 values). Both
models read the same blocks; one multiplies them as they are, with activations of 8 bits and keys and values in
bfloat16, the other one expanded, all in float32.

Greedy agreement: the prompts and float32 answers that Transformers gave (tests/data/parity). "given the same tokens"
asks at each place of the answer, after the answer so far; "on its own" lets the model run, so that everything behind
the first difference counts as it falls.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from inference_pio import LLM, SamplingParams
from inference_pio.benchmarks import accuracy
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.workload import Workload
from inference_pio.loader.resolve import resolve
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.opened import open_model
from requantize import KINDS, requantize

SMALL = "smollm2-135m-instruct"
GOLDEN = Path(__file__).parents[1] / "tests/data/parity/smollm2_greedy.json"
MOST, LEAST = 1.01, 0.95  # perplexity by that of float32; share of equal tokens


def perplexities(path: Path, text: str, tokens: int) -> tuple[float, float]:
    """Of packed weights, and of the same blocks in float32."""
    packed, exact = (_perplexity(path, dtype, text, tokens) for dtype in ("auto", "float32"))
    return packed, exact


def _perplexity(path: Path, dtype: str, text: str, tokens: int) -> float:
    with _loaded(path, dtype) as loaded:
        ids = loaded.plugin.tokenize(text)[:tokens]
        return accuracy.score(loaded, ids).perplexity


def _loaded(path: Path, dtype: str) -> LoadedModel:
    opened = open_model(str(path), RuntimeOptions())
    plugin = default_registry().for_checkpoint(opened.raw, str(path)).name
    opened.checkpoint.close()
    return LoadedModel(plugin, str(path), [Workload(1, 64, 64)], dtype=dtype, text=True)


def agreement(path: Path) -> tuple[float, float, float]:
    """Shares of equal tokens: given the same tokens before; on its own; on its own up to the first difference."""
    rows = json.loads(GOLDEN.read_text())["rows"]
    prompts, answers = ([row[part] for row in rows] for part in ("prompt", "answer"))
    with _loaded(path, "auto") as loaded:
        given = accuracy.same_best(loaded, prompts, answers)
    params = SamplingParams(temperature=0.0, max_tokens=len(answers[0]), ignore_eos=True)
    with LLM(str(path), max_model_len=1024, kv_cache_memory_gb=0.6) as llm:
        outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)
    alone = before = total = 0
    for output, answer in zip(outputs, answers, strict=True):
        same = [ours == theirs for ours, theirs in zip(output.outputs[0].token_ids, answer, strict=True)]
        alone += sum(same)
        before += same.index(False) if False in same else len(same)
        total += len(same)
    return given, alone / total, before / total


def measure(kinds: list[str], models: list[str], text: str, tokens: int) -> dict[str, Any]:
    small = resolve(SMALL).path
    perplexity = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            path = requantize(small, Path(folder) / f"{kind}.gguf", lambda _, kind=kind: kind)
            perplexity.append((SMALL, kind, *perplexities(path, text, tokens)))
            path.unlink()
    for model in [SMALL, *models]:
        perplexity.append((model, "its file", *perplexities(resolve(model).path, text, tokens)))
    given, alone, before = agreement(small)
    return {
        "perplexity": [
            {"model": model, "blocks": kind, "packed": packed, "float32": exact, "ratio": packed / exact}
            for model, kind, packed, exact in perplexity
        ],
        "agreement": {
            "given the same tokens": given,
            "on its own": alone,
            "on its own, up to the first difference": before,
        },
    }


def show(found: dict[str, Any]) -> None:
    print(f"{'model':30} {'blocks':9} {'packed':>9} {'float32':>9} {'ratio':>8}")
    for row in found["perplexity"]:
        print(
            f"{row['model']:30} {row['blocks']:9} {row['packed']:9.4f} {row['float32']:9.4f} {row['ratio']:8.5f}"
            f"{'' if row['ratio'] <= MOST else f'  above {MOST}'}"
        )
    print(f"\ngreedy tokens of {SMALL} equal to float32's, 20 prompts × 64 tokens")
    for how, share in found["agreement"].items():
        print(f"  {how:40} {share:7.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of blocks, separated by commas")
    parser.add_argument("--models", default="", help="more models, in the blocks of their files")
    parser.add_argument("--text", type=Path, help="a text file (default: sonnets)")
    parser.add_argument("--tokens", type=int, default=4096, help="of the text at most")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    sonnets = resources.files("inference_pio.benchmarks").joinpath("sonnets.txt")
    text = (options.text or sonnets).read_text(encoding="utf-8")
    kinds, models = ([name for name in given.split(",") if name] for given in (options.kinds, options.models))
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds knows {', '.join(KINDS)}, not {', '.join(sorted(unknown))}")
    found = measure(kinds, models, text, options.tokens)
    print(json.dumps(found, indent=1)) if options.json else show(found)
    if found["agreement"]["given the same tokens"] < LEAST or any(
        row["ratio"] > MOST for row in found["perplexity"]
    ):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
