"""A calibration text as token ids."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pio.errors import UsageError
from inference_pio.optimizations.text import usual_text
from inference_pio.plugin.quantization import LEAST_TOKENS
from inference_pio.runtime.prepared import Prepared
from inference_pio.runtime.prompts import TextSide

WINDOW = 512  # tokens of a sequence
_USUAL_TOKENS = 8192


def calibration_windows(ready: Prepared, text: str | None = None, tokens: int | None = None) -> Tensor:
    """Token ids [windows, WINDOW] of a text's beginning, each window with what the tokenizer puts before a text.

    Where there are not as many tokens as one window has, or the model has fewer positions, windows are shorter.

    Args:
        text: None: the package's.
        tokens: that the caller wants; None: as many as there are, up to 8192.

    Raises:
        UsageError: the text has fewer tokens, or too few to say anything.
        TokenizerError: the checkpoint has no tokenizer.
    """
    side = TextSide.of(ready.files, ready.plugin.chat_format(ready.config), sees=False)
    start = side.tokenizer.encode("")
    most = _USUAL_TOKENS if tokens is None else tokens
    # No more of the text than is needed: more than 20 characters a token on average there are in no language.
    ids = side.tokenizer.encode((usual_text() if text is None else text)[: 20 * most])[len(start) :][:most]
    if len(ids) < (tokens or LEAST_TOKENS):
        wanted = f"{tokens} were asked for" if tokens else f"{LEAST_TOKENS} are the least that says anything"
        raise UsageError(f"the calibration text has {len(ids)} tokens, {wanted}: give a longer one")
    each = min(WINDOW, ready.config.max_position_embeddings, len(ids)) - len(start)
    return torch.tensor([start + ids[at : at + each] for at in range(0, len(ids) - each + 1, each)])
