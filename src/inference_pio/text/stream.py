"""From the tokens of one answer to the text a caller sees."""

from __future__ import annotations

from collections.abc import Sequence

from inference_pio.sampling_params import SamplingParams
from inference_pio.text.detokenizer import IncrementalDetokenizer
from inference_pio.text.stop import StopStrings
from inference_pio.text.tokenizer import Tokenizer


class TextStream:
    """Whole characters, cut off at the first stop string, as tokens come in.

    Args:
        kept: special tokens that are text even where special tokens are skipped: whoever reads it needs them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        params: SamplingParams,
        prompt_token_ids: Sequence[int] = (),
        kept: frozenset[int] = frozenset(),
    ) -> None:
        self._detokenizer = IncrementalDetokenizer(
            tokenizer, prompt_token_ids, params.skip_special_tokens, kept
        )
        self._stop = StopStrings(params.stop_strings, params.include_stop_str_in_output)

    def push(self, token_ids: Sequence[int]) -> tuple[str, str | None]:
        """New text, and the stop string that ends the answer, if one does; what follows it is dropped."""
        return self._stop.push(self._detokenizer.push(token_ids))

    def finish(self) -> str:
        """The text still held back when generation ends without a stop string."""
        text, _ = self._stop.push(self._detokenizer.finish())
        return text + self._stop.finish()
