"""Our own worker: `LLM` with its defaults, as a script would use it."""

from __future__ import annotations

import time

from worker_protocol import Settings, Tokens, serve

import inference_pio
from inference_pio import LLM, SamplingParams


class InferencePIO:
    """Tokenizer included, so that the start costs what it costs a user."""

    def __init__(self, settings: Settings) -> None:
        # Answers to random prompts repeat themselves: guessing ahead would win where it does not for people.
        self._llm = LLM(
            settings.model,
            max_model_len=settings.max_len,
            max_num_seqs=settings.max_seqs,
            speculation=0,
            tuned=False,  # records of different days are set against each other
        )
        self.vocab_size: int = self._llm.plugin.config.vocab_size
        self.version = inference_pio.__version__
        self.described = (
            f"LLM with its defaults but no speculation, max_num_seqs {settings.max_seqs}, "
            f"max_model_len {settings.max_len}"
        )

    def generate(self, prompts: Tokens, output_len: int) -> tuple[Tokens, float | None]:
        params = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True)
        start = time.perf_counter()
        outputs = self._llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)
        firsts = [output.metrics.time_to_first_token for output in outputs if output.metrics]
        return [output.outputs[0].token_ids for output in outputs], start + min(firsts) if firsts else None


if __name__ == "__main__":
    serve(InferencePIO)
