"""What 4-bit weights cost, rounded to nearest and by a calibration text: perplexity beside the same model in float32.

    python benchmarks/quantization.py [--model smollm2-135m-instruct] [--bits 4] [--group 128] [--calibrate 4096]
        [--text FILE] [--tokens 2048] [--json]

The reference is the model's own weights, expanded from whatever blocks its file has, in float32. Both candidates are
files as `inference-pio quantize --again` writes them, served as anybody would serve them: blocks multiplied as they are
with activations of 8 bits. They have the same tensors in the same kinds of blocks and groups of the same size; only
the method differs. A model whose file has 4-bit blocks of 32 values already loses nothing when it is rounded into such
blocks again: for it only larger groups say something.

"share" is the calibrated loss by that of rounding to nearest, both the mean difference of negative log-likelihoods (the
logarithm of the ratio of perplexities), on a text that the calibration text does not contain. Exit code 1 where it is
above 0.5.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference_pio.loader.resolve import resolve
from inference_pio.optimizations.text import usual_text
from inference_pio.plugin.quantization import METHODS, Recipe
from inference_pio.runtime.quantizing import quantize_model
from packed_accuracy import SMALL, TEXT, WINDOW, likelihoods
from perplexity_ratio import LEAST_WINDOWS, PerplexityRatio

MOST = 0.5  # of what rounding to nearest loses


def compare(model: str, bits: int, group: int, calibrate: int, text: str, tokens: int) -> dict[str, Any]:
    """Perplexities by method, what each loses with its 95 % interval, and the share."""
    source = resolve(model).path
    exact = likelihoods(source, "float32", text, tokens, model)
    found: dict[str, Any] = {
        "model": model,
        "bits": bits,
        "group": group,
        "tokens": exact.numel(),
        "float32": math.exp(exact.mean().item()),
    }
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            path = Path(folder) / f"{method}{source.suffix}"
            recipe = Recipe(bits, group, method, calibrate, again=True)
            written = quantize_model(str(source), path, recipe, usual_text())
            nll = likelihoods(path, "auto", text, tokens, method)
            ratio = PerplexityRatio.of(nll, exact)
            found[method] = {
                "perplexity": math.exp(nll.mean().item()),
                "lost": math.log(ratio.ratio),
                **{name: value for name, value in asdict(ratio).items() if name != "windows"},
                "compensated": written.compensated,
                "seconds": written.seconds,
            }
    found["share"] = found["gptq"]["lost"] / found["rtn"]["lost"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=SMALL)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=128, help="columns that share a scale (default: 128)")
    parser.add_argument("--calibrate", type=int, default=4096, help="tokens of the packaged text")
    parser.add_argument("--text", type=Path, default=TEXT, help="to measure on (default: Coriolanus in part)")
    parser.add_argument("--tokens", type=int, default=2048, help="of that text at most")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.tokens < LEAST_WINDOWS * WINDOW:
        parser.error(f"--tokens is {options.tokens}, less than {LEAST_WINDOWS} windows of {WINDOW}")
    text = options.text.read_text(encoding="utf-8")
    found = compare(options.model, options.bits, options.group, options.calibrate, text, options.tokens)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{found['model']}, {found['tokens']} tokens; float32: perplexity {found['float32']:.3f}")
        for method in METHODS:
            row = found[method]
            print(
                f"{method:5} {row['perplexity']:9.3f}  ratio {row['ratio']:.4f} ({row['low']:.4f} – {row['high']:.4f})"
                f"  {row['seconds']:.0f} s"
            )
        print(f"share of the loss that is left: {found['share']:.3f} (at most {MOST})")
    if found["share"] > MOST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
