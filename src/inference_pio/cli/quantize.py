"""`inference-pio quantize`: a model's weights in fewer bits, as a file that loads like any other."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference_pio.cli.calibrate import read_text
from inference_pio.cli.held import within
from inference_pio.cli.limit_options import LimitOptions
from inference_pio.cli.options import AcceptLicence, AsJson, Model, Quiet
from inference_pio.cli.progress import download_bars
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_json
from inference_pio.cli.text import size
from inference_pio.plugin.quantization import METHODS, Recipe
from inference_pio.plugin.runtime import RuntimeOptions

if TYPE_CHECKING:
    from inference_pio.runtime.quantizing import Written


def quantize(
    model: Model,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The new GGUF file; of a safetensors model, the new folder.")
    ],
    bits: Annotated[int, typer.Option("--bits", metavar="4|8", help="Of each weight.")] = Recipe.bits,
    group: Annotated[
        int, typer.Option("--group", metavar="32|64|128", help="Columns that share a scale.")
    ] = Recipe.group_size,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="|".join(METHODS),
            help="gptq makes up for what rounding does to the model's answers on a text; rtn rounds to nearest.",
        ),
    ] = Recipe.method,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="Text of the kind that the model will meet. (prose and code, packaged)",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens", metavar="N", help="Of the text, from its beginning. (up to 8192)", show_default=False
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Round weights once more that have as few bits already.")
    ] = False,
    accept_licence: AcceptLicence = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    *,
    limits: LimitOptions,
) -> None:
    """Write a model with its weights in 4 or 8 bits.

    Embeddings and the head get 8 bits. A GGUF file stays one.
    """
    recipe = Recipe(bits, group, method, tokens, again)
    words = read_text(text)
    within(limits, "quantize")
    with importing():
        from inference_pio.runtime.quantizing import quantize_model
    options = RuntimeOptions(accept_licence=accept_licence, download=not offline)
    with download_bars(quiet) as progress:
        written = quantize_model(model, out, recipe, words, options=options, progress=progress)
    if as_json:
        print_json(_facts(written))
    elif not quiet:
        print(_sentence(written), file=sys.stderr)


def _facts(written: Written) -> dict[str, Any]:
    return {**asdict(written), "path": str(written.path)}


def _sentence(written: Written) -> str:
    how = f"{written.compensated} matrices by {written.tokens} tokens of text, " if written.tokens else ""
    return (
        f"{written.path}: {size(written.nbytes)} of {size(written.source_bytes)}; {how}{written.nearest} to nearest, "
        f"{written.kept} tensors as they were, {written.seconds:.0f} s"
    )
