"""What a model thinks of given tokens: through the model itself, beside the engine that generates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.cache.specs import CacheSpec
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.serving import serving_of

_CHUNK = 256


@dataclass(frozen=True)
class Scores:
    """For each token that was scored: what the model thought of it, and which one it would have said itself."""

    nll: Tensor
    best: Tensor

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood per token."""
        return math.exp(self.nll.mean().item())


@dataclass(frozen=True)
class Continuation:
    """How likely a model finds a continuation: the sum of its tokens' log-probabilities, and whether it would have
    said just that, each token being its best."""

    logprob: float
    is_greedy: bool


class Scorer:
    """Scores one sequence after the other in chunks, each attending to those before it through a cache of its own.

    What a sequence has in common with the one before it is not computed again, except where a model keeps state,
    which cannot be cut.

    Args:
        longest: tokens that a sequence may have.
        specs: of caches in place of the model's own.
    """

    def __init__(self, loaded: LoadedModel, longest: int, specs: Sequence[CacheSpec] | None = None) -> None:
        self._model, self._device = loaded.model, loaded.device
        specs = specs or serving_of(loaded.model).cache_specs
        block = serving_of(loaded.model).block_size
        self._longest, self._blocks = longest, -(-longest // block)
        self._caches = [spec.allocate(self._blocks, block, 1, loaded.device) for spec in specs]
        keeps_state = any(spec.bytes_per_sequence() for spec in specs)
        self._slot = torch.zeros(1, dtype=torch.int64, device=loaded.device) if keeps_state else None
        self._before: list[int] = []

    def scores(self, ids: Sequence[int], first: int = 1) -> Scores:
        """Of the tokens `ids[first:]`, each after all before it; `first` is 1 at least."""
        nll, best = [], []
        for row, logits in self._logits(ids, first - 1, len(ids) - 1):
            following = torch.tensor(ids[row + 1 : row + 1 + len(logits)], device=self._device)
            nll.append(functional.cross_entropy(logits.float(), following, reduction="none").cpu())
            best.append(logits.argmax(dim=-1).cpu())
        return Scores(torch.cat(nll), torch.cat(best))

    def logits(self, ids: Sequence[int]) -> Iterator[Tensor]:
        """Those of all tokens, [n, V] of some at a time."""
        return (logits for _, logits in self._logits(ids, 0, len(ids)))

    def after(self, ids: Sequence[int]) -> Tensor:
        """Log-probabilities [V] of the token that follows `ids`."""
        [(_, logits)] = self._logits(ids, len(ids) - 1, len(ids))
        return logits[0].float().log_softmax(dim=-1).cpu()

    def continuations(self, context: Sequence[int], many: Sequence[Sequence[int]]) -> list[Continuation]:
        """Of each of several continuations of one context, neither of them empty; where all are of one token the
        context is computed once. A context that is too long loses its beginning: the last
        token of all is never computed."""
        context = list(context)[-max(1, self._longest + 1 - max(map(len, many))) :]
        if all(len(one) == 1 for one in many):
            following = self.after(context)
            best = int(following.argmax())
            return [Continuation(following[one[0]].item(), one[0] == best) for one in many]
        found = []
        for one in many:
            scores = self.scores([*context, *one], len(context))
            found.append(Continuation(-scores.nll.sum().item(), scores.best.tolist() == list(one)))
        return found

    @torch.inference_mode()
    def _logits(self, ids: Sequence[int], first: int, end: int) -> Iterator[tuple[int, Tensor]]:
        """(number of the first row, logits [n, V]) of the rows `first` to `end`, in pieces."""
        start = 0 if self._slot is not None else min(_common(self._before, ids), first)
        self._before = []  # until it is done, nobody knows what the cache holds
        tokens = torch.tensor(ids, device=self._device)
        for begin in range(start, end, _CHUNK):
            stop = min(begin + _CHUNK, end)
            wanted = range(max(first, begin), stop)
            rows = torch.tensor([row - begin for row in wanted] or [stop - begin - 1], device=self._device)
            logits = self._model(self._chunk(tokens[begin:stop], begin, rows), self._caches)
            if wanted:
                yield wanted[0], logits
        self._before = list(ids[:end])

    def _chunk(self, part: Tensor, start: int, rows: Tensor) -> ForwardBatch:
        """One sequence's tokens from `start` on, whose blocks lie in order: slot and position are the same number."""
        count, device = len(part), self._device
        positions = torch.arange(start, start + count, device=device)
        return ForwardBatch(
            token_ids=part,
            positions=positions,
            query_start=torch.tensor([0, count], dtype=torch.int32, device=device),
            seq_lens=torch.tensor([start + count], dtype=torch.int32, device=device),
            block_tables=torch.arange(self._blocks, dtype=torch.int32, device=device)[None],
            slot_mapping=positions,
            state_slots=self._slot,
            last_token=rows,
            max_query_len=count,
            max_seq_len=start + count,
        )


def split(
    loaded: LoadedModel, context: str, continuation: str, *, special: bool = True
) -> tuple[list[int], list[int]]:
    """Token ids of a context and of what follows it, cut where the context's own tokens end; white space at the end
    of the context belongs to what follows, as tokenizers have it in front of a word. `special`: with the tokens that
    the tokenizer puts in front."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole = loaded.plugin.tokenize(context + continuation, add_special_tokens=special)
    before = len(loaded.plugin.tokenize(context, add_special_tokens=special))
    # A continuation that melts into the context's last token keeps its last token at least.
    before = min(before, len(whole) - 1)
    return whole[:before], whole[before:]


def _common(before: Sequence[int], ids: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(before, ids, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(before), len(ids)))
