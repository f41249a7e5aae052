"""An adapter for EleutherAI's evaluation harness: its tasks on a model of ours. `pip install inference-pio[lm-eval]`

As the harness's own command, with this adapter's name added:

    python -m inference_pio.benchmarks.lm_eval_adapter --model inference-pio \\
        --model_args pretrained=smollm2-135m-instruct,kv_cache_dtype=int8 --tasks lambada_openai --batch_size 8

In a script:

    lm_eval.simple_evaluate(model=InferencePIO("smollm2-135m-instruct"), tasks=["lambada_openai"])
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.scoring import Scorer, split
from inference_pio.benchmarks.suites import context_of
from inference_pio.benchmarks.tasks.generation import cut
from inference_pio.benchmarks.workload import Workload
from inference_pio.errors import UnavailableError, UsageError
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.progress_bar import Bar
from inference_pio.runtime.opened import open_model
from inference_pio.sampling_params import MAX_STOP_STRINGS, SamplingParams

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    _MISSING = f"the evaluation harness is not installed: pip install inference-pio[lm-eval] ({error})"
    LM = object
else:
    _MISSING = ""

NAME = "inference-pio"
_LONGEST, _AT_ONCE = 4096, 8
_UNCHOSEN = "cuda:0"  # what the harness's command line names where nobody chose a device
# The harness's names for how many tokens an answer may have.
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty", "seed")


class InferencePIO(LM):  # type: ignore[misc]
    """One loaded model as the harness sees it.

    Args:
        pretrained: whatever names a model.
        dtype, device: as `LLM` takes them; "cuda:0", which the harness says where nobody chose, is "auto" on a machine
            without CUDA.
        plugin: the name of the plugin to run it with; None is the one for its architecture.
        max_length: tokens of context that are used; by default what the model has, 4,096 at most.
        max_gen_toks: tokens of an answer where a task does not say.
        batch_size: answers generated at once. Likelihoods are computed one after the other, and what a request has in
            common with the one before it once.
        max_batch_size: the harness gives it; larger than `batch_size` it changes nothing.
        add_bos_token: put the token for the beginning in front, which the harness leaves away by default.
        options: further fields of `RuntimeOptions`: quantize, kv_cache_dtype, …

    Raises:
        UnavailableError: the harness is not installed.
        InferencePIOError: the model cannot be found, read or run here.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        plugin: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        batch_size: int | str = 8,
        max_batch_size: int | None = None,
        add_bos_token: bool = False,
        **options: Any,
    ) -> None:
        if _MISSING:
            raise UnavailableError(_MISSING)
        super().__init__()
        known = RuntimeOptions.names() - {"max_model_len", "max_num_seqs", "skip_tokenizer_init"}
        if unknown := sorted(set(options) - known):
            raise UsageError(f"the adapter does not know {', '.join(unknown)}")
        # "auto" is the harness's word for a number that the model side chooses.
        at_once = int(batch_size) if str(batch_size).isdigit() else _AT_ONCE
        at_once = min(at_once, max_batch_size or at_once)
        if device == _UNCHOSEN and not torch.cuda.is_available():
            device = "auto"
        opened = open_model(pretrained, RuntimeOptions(**options))
        opened.checkpoint.close()
        length = max_length or min(context_of(opened) or _LONGEST, _LONGEST)
        self._loaded = LoadedModel(
            default_registry().choose(opened.raw, str(opened.source.path), plugin).name,
            pretrained,
            [Workload(1, length - 1, concurrency=at_once)],
            dtype=dtype,
            device=device,
            options=options,
            text=True,
        )
        self.max_length, self._max_gen_toks, self._special = length, max_gen_toks, add_bos_token
        self._name = opened.source.name
        self._scorer = Scorer(self._loaded, length)
        tokenizer = self._loaded.tokenizer
        first = tokenizer.bos_token_id
        self._prefix = first if first is not None else next(iter(tokenizer.eos_token_ids), 0)

    @property
    def tokenizer_name(self) -> str:
        """What tells the harness's caches of requests apart."""
        return self._name.replace("/", "__")

    def loglikelihood(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Of each continuation after its context, and whether it is what the model would say."""
        pairs = [self._pair(*request.args) for request in requests]
        order = sorted(range(len(pairs)), key=lambda index: pairs[index])
        found: dict[int, tuple[float, bool]] = {}
        with _bar("loglikelihood", len(pairs), disable_tqdm) as advance:
            for context, group in groupby(order, key=lambda index: pairs[index][0]):
                indices = list(group)
                scores = self._scorer.continuations(context, [pairs[index][1] for index in indices])
                for index, score in zip(indices, scores, strict=True):
                    found[index] = (score.logprob, score.is_greedy)
                    self.cache_hook.add_partial("loglikelihood", requests[index].args, found[index])
                    advance()
        return [found[index] for index in range(len(pairs))]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in windows as long as the context, each token once."""
        found = []
        with _bar("loglikelihood_rolling", len(requests), disable_tqdm) as advance:
            for request in requests:
                (text,) = request.args
                windows = get_rolling_token_windows(
                    token_list=self._encode(text),
                    prefix_token=self._prefix,
                    max_seq_len=self.max_length,
                    context_len=1,
                )
                pairs = [make_disjoint_window(window) for window in windows]
                scores = [self._scorer.continuations(before, [part])[0] for before, part in pairs]
                found.append(sum(score.logprob for score in scores))
                self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
                advance()
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string; a prompt that is too long loses its beginning."""
        params = [self._params(request.args[1]) for request in requests]
        prompts = [
            self._encode(request.args[0])[-max(1, self.max_length - (one.max_tokens or 1)) :]
            or [self._prefix]
            for request, one in zip(requests, params, strict=True)
        ]
        with _bar("generate_until", len(requests), disable_tqdm) as advance:
            answers = self._loaded.answers(prompts, params, advance)
        # The engine stops at four strings at most; what else a task names is cut off here.
        answers = [
            cut(answer, _stops(request.args[1])) for request, answer in zip(requests, answers, strict=True)
        ]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return answers

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt that the model's own template makes of a conversation."""
        return str(self._loaded.render_chat(chat_history, add_generation_prompt))

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's own; another one cannot be named."""
        if isinstance(chat_template, str):
            raise UsageError("this adapter formats conversations by the model's own chat template only")
        return self._loaded.tokenizer.chat_template if chat_template else ""

    def close(self) -> None:
        """Release the model."""
        self._loaded.close()

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._loaded.plugin.tokenize(text, add_special_tokens=self._special)
        return ids

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context:
            return split(self._loaded, context, continuation, special=self._special)
        ids = self._encode(continuation)
        # A text that brings the token for the beginning needs none in front.
        return (ids[:1], ids[1:]) if len(ids) > 1 and ids[0] == self._prefix else ([self._prefix], ids)

    def _params(self, arguments: Mapping[str, Any]) -> SamplingParams:
        """What a task asks for, in our words; greedy where it does not ask for samples."""
        asked = dict(arguments)
        asked.pop("until", None)
        lengths = [asked.pop(name) for name in _LENGTHS if name in asked]
        sampled, temperature = asked.pop("do_sample", None), asked.pop("temperature", None)
        if unknown := sorted(asked.keys() - set(_SAMPLING)):
            raise UsageError(
                f"the adapter does not know the task's generation arguments {', '.join(unknown)}"
            )
        if temperature is None:
            temperature = 1.0 if sampled else 0.0
        return SamplingParams(
            temperature=0.0 if sampled is False else temperature,
            max_tokens=min(int(lengths[0]) if lengths else self._max_gen_toks, self.max_length - 1),
            stop=_stops(arguments)[:MAX_STOP_STRINGS],
            **asked,
        )


def _stops(arguments: Mapping[str, Any]) -> list[str]:
    until = arguments.get("until") or []
    return [until] if isinstance(until, str) else [text for text in until if text]


@contextmanager
def _bar(what: str, total: int, hidden: bool) -> Iterator[Callable[[], None]]:
    if hidden:
        yield lambda: None
        return
    with Bar(what, total) as bar:
        yield bar.advance


def main() -> None:
    """The harness's own command line, which then knows the name of this adapter."""
    if _MISSING:
        print(f"error: {_MISSING}", file=sys.stderr)
        sys.exit(UnavailableError.exit_code)
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if not _MISSING:
    register_model(NAME)(InferencePIO)

if __name__ == "__main__":
    main()
