"""Receipts of quality: what approximate techniques did to a checkpoint's answers, and which of them may act so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from inference_pio.config import BaseModelConfig
from inference_pio.errors import ModelFileError
from inference_pio.loader.checkpoint import Checkpoint
from inference_pio.loader.identity import checkpoint_identity
from inference_pio.loader.partial import write_atomically
from inference_pio.loader.store import ModelStore
from inference_pio.optimizations.memory.kv_compression import KVInt8
from inference_pio.optimizations.quality import LEVELS, Grant, Grants, no_receipt
from inference_pio.plugin.runtime import RuntimeOptions

VERSION = 1


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Against the reference on the calibration text: mean KL divergence in nats per token, share of equal best tokens,
    perplexity.
    """

    kl: float
    top1: float
    perplexity: float


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One technique at one level.

    measured  with it alone, `exempt` layers left as they are
    reason    why it is not allowed; empty where it is
    """

    measured: Measured
    exempt: tuple[int, ...] = ()
    reason: str = ""


class _AnyVersion(msgspec.Struct, frozen=True):
    version: int


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured on one checkpoint.

    weights    how its weights lay in memory: what was asked of `quantize`, else of the dtype
    kernels    instruction set that the operations used
    reference  what the reference logits were computed with
    text       sha256 of the calibration text, and `tokens` of it that were scored
    base       without any approximate technique, quantised weights as they are
    levels     level -> technique -> entry
    together   level -> all that are allowed, at once
    """

    version: int
    checkpoint: str
    weights: str
    model: str
    date: str
    kernels: str
    reference: str
    text: str
    tokens: int
    base: Measured
    levels: dict[str, dict[str, Entry]]
    together: dict[str, Measured]

    def grant(self, name: str, level: str) -> Grant:
        """What it says of a technique at a level."""
        entry = self.levels.get(level, {}).get(name)
        if entry is None:
            return Grant(
                False, f"approximate, and its receipt of {self.date[:10]} does not have it: calibrate again"
            )
        if reason := entry.reason or LEVELS[level].violation(entry.measured.kl, entry.measured.top1):
            return Grant(False, reason)
        kept = f", layers {', '.join(map(str, entry.exempt))} left as they are" if entry.exempt else ""
        figures = f"KL {entry.measured.kl:.2g}, top-1 {entry.measured.top1:.3f}"
        return Grant(True, f"{figures} on {self.tokens:,} tokens{kept}", entry.exempt)


def weights_word(torch_dtype: object, quantize: str | None) -> str:
    """How a caller wants weights to lie in memory, in one word."""
    return (quantize or str(torch_dtype).removeprefix("torch.")).replace(":", "-")


def receipt_path(store: ModelStore, checkpoint: str, weights: str) -> Path:
    return store.home / "receipts" / f"{checkpoint}-{weights}.json"


def save_receipt(store: ModelStore, receipt: Receipt) -> Path:
    """Write it where `read_receipt` finds it."""
    path = receipt_path(store, receipt.checkpoint, receipt.weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(receipt)))
    return path


def read_receipt(store: ModelStore, checkpoint: str, weights: str) -> Receipt | None:
    """The receipt of a checkpoint with its weights so; None: there is none of this version of the program.

    Raises:
        ModelFileError: the file is none, or another checkpoint's.
    """
    path = receipt_path(store, checkpoint, weights)
    if not path.is_file():
        return None
    again = "remove it, and make it again with inference-pio calibrate"
    written = path.read_bytes()
    try:
        if msgspec.json.decode(written, type=_AnyVersion).version != VERSION:
            return None
        found = msgspec.json.decode(written, type=Receipt)
    except msgspec.DecodeError as error:
        raise ModelFileError(path, f"not a receipt: {error}", hint=again) from error
    if (found.checkpoint, found.weights) != (checkpoint, weights):
        what = f"the receipt of another checkpoint, {found.model} ({found.checkpoint[:12]}, {found.weights})"
        raise ModelFileError(path, what, hint=again)
    return found


def word_of_receipts(
    store: ModelStore, checkpoint: Checkpoint, config: BaseModelConfig
) -> Callable[[str, RuntimeOptions], Grant | None]:
    """What receipts say of int8 keys and values, or of weights in the bits of the options; None: there is none."""

    def word(technique: str, options: RuntimeOptions) -> Grant | None:
        if not (store.home / "receipts").is_dir():
            return None
        weights = weights_word(config.torch_dtype, options.quantize)
        found = read_receipt(store, checkpoint_identity(checkpoint), weights)
        if found is None or technique == KVInt8.name:
            return None if found is None else found.grant(technique, options.quality)
        kl, top1 = found.base.kl, found.base.top1
        violation = LEVELS[options.quality].violation(kl, top1)
        return Grant(not violation, violation or f"KL {kl:.2g}, top-1 {top1:.3f} on {found.tokens:,} tokens")

    return word


def receipt_grants(
    store: ModelStore, checkpoint: Checkpoint, config: BaseModelConfig, options: RuntimeOptions
) -> Grants:
    """What the receipt of an open checkpoint allows of a model that is to run so."""
    if not (store.home / "receipts").is_dir():
        return no_receipt
    weights = weights_word(config.torch_dtype, options.quantize)
    found = read_receipt(store, checkpoint_identity(checkpoint), weights)
    return no_receipt if found is None else lambda name: found.grant(name, options.quality)
