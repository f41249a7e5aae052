"""A calibration text through a loaded model: what each of its linear maps is given, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from inference_pio.cache.specs import CacheSpec, state_specs
from inference_pio.config import BaseModelConfig
from inference_pio.errors import UsageError
from inference_pio.layers import Linear, VocabParallelHead
from inference_pio.layers.watching import watched_linears
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.quantization import LEAST_TOKENS
from inference_pio.text.tokenizer import Tokenizer

WINDOW = 512  # tokens of a sequence
USUAL_TOKENS = 8192
_BLOCK = 32
_LONGEST_TEXT = 64 * 2**20  # bytes
# Of the package. Parts of plays by Shakespeare (public domain), and of this project's own pages and modules.
_TEXT = "calibration_text.txt"


def packaged_text() -> str:
    """The calibration text that is used where the caller has none."""
    return resources.files("inference_pio.optimizations").joinpath(_TEXT).read_text(encoding="utf-8")


def read_text(path: Path) -> str:
    """A calibration text of the caller's.

    Raises:
        UsageError: it cannot be read, is empty, no UTF-8, or far too large.
    """
    try:
        size = path.stat().st_size
        if size > _LONGEST_TEXT:
            raise UsageError(f"{path} has {size / 1e6:.0f} MB, more than a calibration text may have (67 MB)")
        text = path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text: byte {error.start} is not UTF-8") from error
    if "\0" in text:
        raise UsageError(f"{path} is not text: character {text.index(chr(0))} is a NUL")
    if not text.strip():
        raise UsageError(f"{path} is empty: a calibration text of some thousand words is needed")
    return text


def calibration_windows(
    tokenizer: Tokenizer, text: str, tokens: int | None, config: BaseModelConfig
) -> Tensor:
    """Token ids [windows, WINDOW] of the text's beginning, each window with what the tokenizer puts before a text.

    Where there are not as many tokens as one window has, or the model has fewer positions, one window is shorter.

    Args:
        tokens: that the caller wants; None: as many as there are, up to `USUAL_TOKENS`.

    Raises:
        UsageError: the text has fewer tokens, or too few to say anything.
    """
    start = tokenizer.encode("")
    each = min(WINDOW, config.max_position_embeddings) - len(start)
    most = USUAL_TOKENS if tokens is None else tokens
    # No more of the text than is needed: a token has a character at least, and more than 20 on average in no language.
    ids = tokenizer.encode(text[: 20 * most])[len(start) :][:most]
    if len(ids) < (LEAST_TOKENS if tokens is None else tokens):
        wanted = f"at least {LEAST_TOKENS} are needed" if tokens is None else f"--tokens asks for {tokens}"
        raise UsageError(f"the calibration text has {len(ids)} tokens, and {wanted}: give a longer --text")
    each = min(each, len(ids))
    rows = [start + ids[at : at + each] for at in range(0, len(ids) - each + 1, each)]
    return torch.tensor(rows)


class _Done(Exception):
    """Nothing is left to be seen: what the model would compute from here on is of no use."""


@torch.inference_mode()
def visit_linears(
    model: nn.Module,
    specs: Sequence[CacheSpec],
    windows: Tensor,
    names: Collection[str],
    visit: Callable[[str, Linear, Tensor], None],
) -> None:
    """Run `windows`, token ids [windows, tokens], as sequences of their own in one step, and call `visit` with each of
    the named modules and its input when the model first comes to it, before it computes.

    Whatever `visit` does to a module's weight, everything after it sees: in one pass each weight meets the inputs that
    the weights rounded before it leave. So that no layer leaves tokens out, all of them ask for logits; the head is
    never reached, the model stops in front of it.
    """
    left = set(names)

    def see(name: str, module: Linear, x_TI: Tensor) -> None:
        if isinstance(module, VocabParallelHead):
            raise _Done
        if name in left:
            left.remove(name)
            visit(name, module, x_TI)
        if not left:
            raise _Done

    if not left:
        return
    count, length = windows.shape
    caches = [spec.allocate(count * -(-length // _BLOCK), _BLOCK, count, windows.device) for spec in specs]
    with watched_linears(model, see):
        try:
            model(_step(windows, keeps_state=bool(state_specs(specs))), caches)
        except _Done:
            return


def _step(windows: Tensor, *, keeps_state: bool) -> ForwardBatch:
    count, length = windows.shape
    device = windows.device
    blocks = -(-length // _BLOCK)
    numbers = torch.arange(count, device=device)
    positions = torch.arange(length, device=device)
    return ForwardBatch(
        token_ids=windows.flatten(),
        positions=positions.repeat(count),
        query_start=torch.arange(count + 1, dtype=torch.int32, device=device) * length,
        seq_lens=torch.full((count,), length, dtype=torch.int32, device=device),
        block_tables=torch.arange(count * blocks, dtype=torch.int32, device=device).view(count, blocks),
        slot_mapping=(numbers[:, None] * blocks * _BLOCK + positions).flatten(),
        state_slots=numbers if keeps_state else None,
        last_token=torch.arange(count * length, device=device),
        max_query_len=length,
        max_seq_len=length,
    )
