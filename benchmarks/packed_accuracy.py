"""Whether weights that stay in blocks say what the same blocks say in float32.

    python benchmarks/packed_accuracy.py [--formats Q4_1,Q6_K] [--tokens 4096] [--json]
        [--models tinyllama-1.1b-chat] [--text FILE]

Perplexity on a text, in windows of 512 tokens: SmolLM2-135M-Instruct, its matrices encoded as each kind of blocks, and
whole files as they are. Both models read the same blocks; one multiplies them as they are, with activations of 8 bits
and keys and values in bfloat16, the other one expanded, all in float32. Beside each ratio stands its 95 % interval
(see `PerplexityRatio`): "above" 1.01 is a failure (exit code 1) where the whole interval is; "cannot tell" is one that
lies on both sides, which more text may tell.

Blocks of 256 values do not fit into SmolLM2's rows of 576: for them the model is filled up with zeros to 768, which
computes the same (see `Widening`). Two bits in every matrix would leave nothing of so small a model; Q2_K and IQ2_XXS
stand where it bears them, the other matrices in Q8_0.

Greedy agreement: the prompts and float32 answers that Transformers gave (tests/data/parity). "given the same tokens"
asks at each place of the answer, after the answer so far; "on its own" lets the model run, so that everything behind
the first difference counts as it falls.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encode_super import ENCODERS
from inference_pio import LLM, SamplingParams
from inference_pio.benchmarks import accuracy
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.workload import Workload
from inference_pio.loader.resolve import resolve
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.progress_bar import Bar
from inference_pio.runtime.opened import open_model
from perplexity_ratio import LEAST_WINDOWS, PerplexityRatio
from requantize import KINDS, requantize

SMALL = "smollm2-135m-instruct"
DATA = Path(__file__).parents[1] / "tests/data"
GOLDEN = DATA / "parity/smollm2_greedy.json"
TEXT = DATA / "text/coriolanus.txt"
MOST, LEAST = 1.01, 0.95  # perplexity by that of float32; share of equal tokens
GIVEN = "given the same tokens"
WINDOW = 512
# Where SmolLM2 bears two bits: parts of names.
ONLY = {"Q2_K": ("ffn_gate", "ffn_up"), "IQ2_XXS": ("ffn_up",)}


@dataclass(frozen=True)
class Comparison:
    """Perplexity of packed weights, of the same blocks in float32, and what their ratio is worth."""

    packed: float
    float32: float
    ratio: PerplexityRatio


def compare(path: Path, text: str, tokens: int, what: str) -> Comparison:
    """On whole windows of at most `tokens` of the text; `what` stands before the progress bars."""
    packed, exact = (likelihoods(path, dtype, text, tokens, what) for dtype in ("auto", "float32"))
    ratio = PerplexityRatio.of(packed, exact)
    return Comparison(math.exp(packed.mean().item()), math.exp(exact.mean().item()), ratio)


def likelihoods(path: Path, dtype: str, text: str, tokens: int, what: str) -> Tensor:
    """[windows, tokens]: negative, in nats, of all tokens of a window but its first."""
    found = []
    with _loaded(path, dtype) as loaded:
        parts = windows(loaded.plugin.tokenize, text, tokens)
        with Bar(f"{what}, {'packed' if dtype == 'auto' else dtype}", len(parts)) as bar:
            for part in parts:
                found.append(accuracy.score(loaded, part).nll)
                bar.advance()
    return torch.stack(found)


def windows(tokenize: Callable[[str], list[int]], text: str, tokens: int) -> list[list[int]]:
    """Of equal length, each with what the tokenizer puts before a text.

    Raises:
        ValueError: there are too few of them to say how sure a ratio is.
    """
    start = tokenize("")
    ids = tokenize(text)[len(start) :][:tokens]
    each = WINDOW - len(start)
    if len(ids) < LEAST_WINDOWS * each:
        raise ValueError(
            f"{len(ids)} tokens are less than {LEAST_WINDOWS} windows of {each}: "
            "give a longer --text or more --tokens"
        )
    return [start + ids[at : at + each] for at in range(0, len(ids) - each + 1, each)]


def encoded(kind: str, source: Path, target: Path) -> Path:
    """The model with its matrices in blocks of one kind, or part of them (`ONLY`), the others in Q8_0."""
    parts = ONLY.get(kind)

    def kind_of(name: str) -> str:
        return kind if parts is None or any(part in name for part in parts) else "Q8_0"

    return requantize(source, target, kind_of, multiple=256 if kind in ENCODERS else 1)


def _loaded(path: Path, dtype: str) -> LoadedModel:
    opened = open_model(str(path), RuntimeOptions())
    plugin = default_registry().for_checkpoint(opened.raw, str(path)).name
    opened.checkpoint.close()
    return LoadedModel(plugin, str(path), [Workload(1, 64, 64)], dtype=dtype, text=True)


def agreement(path: Path) -> dict[str, float]:
    """Shares of equal tokens."""
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
    return {
        GIVEN: given,
        "on its own": alone / total,
        "on its own, up to the first difference": before / total,
    }


def perplexities(formats: list[str], models: list[str], text: str, tokens: int) -> Iterator[dict[str, Any]]:
    """A row for each kind of blocks, then one for each file, SmolLM2's own first."""
    small = resolve(SMALL).path
    with tempfile.TemporaryDirectory() as folder:
        for kind in formats:
            path = encoded(kind, small, Path(folder) / "model.gguf")
            yield _measured(SMALL, kind, path, text, tokens)
    for model in [SMALL, *models]:
        yield _measured(model, "its file", resolve(model).path, text, tokens)


def _measured(model: str, blocks: str, path: Path, text: str, tokens: int) -> dict[str, Any]:
    found = compare(path, text, tokens, f"{model} {blocks}")
    return {
        "model": model,
        "blocks": blocks,
        "only in": ONLY.get(blocks),
        "packed": found.packed,
        "float32": found.float32,
        **asdict(found.ratio),
        "judgement": found.ratio.against(MOST),
    }


def show_row(row: dict[str, Any]) -> None:
    only = f" ({', '.join(row['only in'])}; others Q8_0)" if row["only in"] else ""
    print(
        f"{row['model']:28} {row['blocks']:8} {row['packed']:9.4f} {row['float32']:9.4f} {row['ratio']:8.5f}  "
        f"{row['low']:.5f} – {row['high']:.5f}  {row['judgement']}{only}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--formats", default=",".join(KINDS), help="kinds of blocks, separated by commas")
    parser.add_argument("--models", default="", help="more models, in the blocks of their files")
    parser.add_argument("--text", type=Path, default=TEXT, help="a text file (default: Coriolanus in part)")
    parser.add_argument(
        "--tokens", type=int, default=1_000_000, help="of the text at most (default: a million)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    formats, models = (
        [name for name in given.split(",") if name] for given in (options.formats, options.models)
    )
    if unknown := set(formats) - set(KINDS):
        parser.error(f"--formats knows {', '.join(KINDS)}, not {', '.join(sorted(unknown))}")
    if options.tokens < LEAST_WINDOWS * WINDOW:
        parser.error(f"--tokens is {options.tokens}, less than {LEAST_WINDOWS} windows of {WINDOW}")
    text = options.text.read_text(encoding="utf-8")
    if not options.json:
        print(
            f"{'model':28} {'blocks':8} {'packed':>9} {'float32':>9} {'ratio':>8}  {'95 % interval':17}  at most {MOST}"
        )
    rows = []
    for row in perplexities(formats, models, text, options.tokens):
        rows.append(row)
        if not options.json:
            show_row(row)
    equal = agreement(resolve(SMALL).path)
    if options.json:
        print(json.dumps({"perplexity": rows, "agreement": equal}, indent=1))
    else:
        print(f"\ngreedy tokens of {SMALL} equal to float32's, 20 prompts × 64 tokens")
        for how, share in equal.items():
            print(f"  {how:40} {share:7.2%}")
    if equal[GIVEN] < LEAST or any(row["judgement"] == "above" for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
