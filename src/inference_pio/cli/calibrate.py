"""`inference-pio calibrate`: which approximate techniques this checkpoint stands, and at which level of quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference_pio.cli.held import within
from inference_pio.cli.limit_options import LimitOptions
from inference_pio.cli.options import AsJson, Model
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_json, print_table
from inference_pio.errors import UnavailableError, UsageError
from inference_pio.optimizations.text import usual_text
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.progress_bar import Counter

if TYPE_CHECKING:
    from inference_pio.runtime.receipts import Entry, Measured, Receipt

_MOST_BYTES = 2**24  # a device gives bytes for ever, and all of a text is made tokens of


def calibrate(
    model: Model,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Text to measure on. (prose and code of the package)"),
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="How weights lie in memory, as in run.")
    ] = "auto",
    quantize: Annotated[
        str | None, typer.Option("--quantize", metavar="NAME", help="Weights in fewer bits, as in run.")
    ] = None,
    plugin: Annotated[
        str | None, typer.Option("--plugin", metavar="NAME", help="The plugin to run it with.")
    ] = None,
    as_json: AsJson = False,
    *,
    limits: LimitOptions,
) -> None:
    """Measure each approximate technique against float32, and keep what stays within each level as this checkpoint's
    receipt; from then on those act by themselves (--quality).
    """
    written = read_text(text)
    RuntimeOptions(quantize=quantize)  # wrong words are told before anything is measured
    within(limits, "calibrate")
    with importing():
        from inference_pio.benchmarks.calibration import calibrate as measure
        from inference_pio.runtime.devices import resolve_device, resolve_dtype
        from inference_pio.runtime.opened import model_store
        from inference_pio.runtime.receipts import save_receipt
    resolve_dtype(dtype, resolve_device("cpu"))
    with Counter("calibrate") as counter:
        receipt = measure(model, written, counter.tell, plugin=plugin, dtype=dtype, quantize=quantize)
    path = save_receipt(model_store(None), receipt)
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(receipt), "path": str(path)})
        return
    _show(receipt)
    print(f"\nkept in {path}")


def read_text(path: Path | None) -> str:
    """A calibration text.

    Raises:
        UnavailableError: there is no such file.
        UsageError: it is empty, no text, or endless.
    """
    if path is None:
        return usual_text()
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UnavailableError(f"calibration text {path}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise UsageError(
            f"calibration text {path} has more than {_MOST_BYTES >> 20} MiB: a few thousand words are enough, give a "
            f"part of it"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"calibration text {path} is not text: byte {error.start} of {len(data):,} is no UTF-8; give a text file"
        ) from error
    if "\0" in text:
        raise UsageError(f"calibration text {path} is not text: byte {data.index(0)} is 0; give a text file")
    if not text.strip():
        raise UsageError(
            f"calibration text {path} is empty: give a few thousand words of what the model will read"
        )
    return text


def _show(receipt: Receipt) -> None:
    print(
        f"{receipt.model}: {receipt.tokens:,} tokens against {receipt.reference}; as it is KL {receipt.base.kl:.2g}, "
        f"top-1 {receipt.base.top1:.3f}, perplexity {receipt.base.perplexity:.3f}\n"
    )
    names = dict.fromkeys(name for entries in receipt.levels.values() for name in entries)
    rows = []
    for name in names:
        entries = [receipt.levels[level].get(name) for level in receipt.levels]
        rows.append((name, *(_said(entry) for entry in entries)))
    rows.append(("all at once", *(_figures(receipt.together[level]) for level in receipt.levels)))
    print_table(["technique", *receipt.levels], rows)


def _said(entry: Entry | None) -> str:
    if entry is None:
        return "–"
    if entry.reason:
        return f"no: {entry.reason}"
    kept = f", without layers {', '.join(map(str, entry.exempt))}" if entry.exempt else ""
    return f"{_figures(entry.measured)}{kept}"


def _figures(measured: Measured) -> str:
    figures: dict[str, Any] = {"KL": f"{measured.kl:.2g}", "top-1": f"{measured.top1:.3f}"}
    return ", ".join(f"{name} {value}" for name, value in figures.items())
