"""A loaded model for one verb, with how long it took to get there."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.exit_codes import INTERRUPTED
from inference_pio.cli.progress import download_bars
from inference_pio.cli.text import one_line
from inference_pio.sampling_params import SamplingParams

if TYPE_CHECKING:
    from inference_pio.llm import LLM


@dataclass(frozen=True)
class Session:
    """`load_seconds` counts importing the libraries and, where it had to be, the download."""

    llm: LLM
    load_seconds: float

    def params(self, overrides: dict[str, Any], prompt_tokens: int) -> SamplingParams:
        """The model's own sampling configuration under what the user gave.

        Where no length was asked for, the answer may be as long as the configuration says or the context leaves.
        """
        from inference_pio.plugin.sampling import sampling_params_of

        usual = max(self.llm.config.max_new_tokens, overrides.get("min_tokens", 0))
        left = max(1, self.llm.max_model_len - prompt_tokens)
        return sampling_params_of(self.llm.config, min(usual, left), overrides)

    def why_cut_off(self, prompt_tokens: int, answer_tokens: int) -> str:
        """For an answer that ended by its length: what ended it."""
        if prompt_tokens + answer_tokens >= self.llm.max_model_len:
            return f"cut off: the context of {self.llm.max_model_len} tokens is full"
        return f"cut off after {answer_tokens} tokens: --max-tokens allows more"

    def guesses(self) -> tuple[int, int]:
        """Tokens that speculation guessed since the model was loaded, and how many of them were right."""
        stats = self.llm.compute_stats()
        return int(stats["draft_tokens"]), int(stats["accepted_draft_tokens"])


@contextmanager
def loaded(model: str, engine: EngineOptions, *, max_num_seqs: int, quiet: bool) -> Iterator[Session]:
    """The model, ready to answer; closed when the block is left, however that happens."""
    started = perf_counter()
    keywords = engine.keywords(max_num_seqs)
    engine.runtime_options(
        max_num_seqs
    )  # wrong profiles, like wrong values, are told before anything is imported
    with importing():
        from inference_pio.llm import LLM
    with download_bars(quiet) as progress:
        llm = LLM(
            model,
            progress=progress,
            profile=engine.profile,
            tuned=not engine.no_tuned,
            **keywords,
        )
    for note in () if quiet else llm.notes:
        print(one_line(f"({note})"), file=sys.stderr)
    with llm:
        yield Session(llm, perf_counter() - started)


@contextmanager
def importing() -> Iterator[None]:
    """Ctrl-C ends the process at once: large libraries swallow a KeyboardInterrupt that hits their own import.

    No garbage is collected meanwhile: what an import makes stays, and looking through it takes 0.15 s of 1.25 s.
    """
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, before)
