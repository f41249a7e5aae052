"""Declarations of work: how many prompts, how long, how much to generate. Token ids are random: no text effects."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from torch import nn

from inference_pio.optimizations.technique import Kind
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.sampling_params import SamplingParams

_LONG = 2 * RuntimeOptions.attention_budget  # tokens: what reads some of them only has a choice
_NEW = 64  # behind them: a conversation's next turn


@dataclass(frozen=True)
class Workload:
    """`concurrency` prompts of `prompt_len` tokens at once, each continued by exactly `output_len`, greedily.

    shared_len  the first tokens that all prompts of a round have in common; the first prompt then runs alone, as the
                earlier turn of a conversation would
    known_len   the first tokens that all rounds have in common: computed in the first one, and found by the others
    """

    prompt_len: int
    output_len: int
    concurrency: int = 1
    shared_len: int = 0
    known_len: int = 0

    def waves(self, vocab_size: int, round_number: int) -> list[list[list[int]]]:
        """The prompts of a round, in groups that run one after the other. Equal rounds are equal, others are not."""
        known = _tokens(random.Random(str(self)), self.known_len, vocab_size)
        draw = random.Random(f"{self}:{round_number}")
        shared = known + _tokens(draw, self.shared_len - self.known_len, vocab_size)
        prompts = [
            shared + _tokens(draw, self.prompt_len - len(shared), vocab_size) for _ in range(self.concurrency)
        ]
        return [prompts[:1], prompts[1:]] if self.shared_len else [prompts]

    def sampling(self) -> SamplingParams:
        return SamplingParams(temperature=0.0, max_tokens=self.output_len, ignore_eos=True)

    @property
    def prompt_tokens(self) -> int:
        return self.prompt_len * self.concurrency

    @property
    def output_tokens(self) -> int:
        return self.output_len * self.concurrency

    @property
    def longest(self) -> int:
        return self.prompt_len + self.output_len

    def quick(self) -> Workload:
        """A small one of the same kind: shows that the benchmark runs, says nothing about speed."""
        return replace(
            self,
            prompt_len=max(2, self.prompt_len // 16),
            shared_len=self.shared_len // 16,
            known_len=self.known_len // 16,
            output_len=max(min(self.output_len, 4), self.output_len // 16),
            concurrency=min(self.concurrency, 4),
        )

    def within(self, positions: int) -> Workload:
        """The same with prompts as long as a context of so many tokens leaves."""
        if self.longest <= positions:
            return self
        output = min(self.output_len, max(1, positions // 2))
        prompt = max(1, positions - output)
        return replace(
            self,
            prompt_len=prompt,
            output_len=output,
            shared_len=min(self.shared_len, prompt - 1),
            known_len=min(self.known_len, prompt - 1),
        )

    def __str__(self) -> str:
        alike = {"shared": self.shared_len, "known": self.known_len}
        words = "".join(f" ({count} of them {word})" for word, count in alike.items() if count)
        return f"{self.concurrency} × {self.prompt_len}{words} + {self.output_len} tokens"


def _tokens(draw: random.Random, count: int, vocab_size: int) -> list[int]:
    return [draw.randrange(vocab_size) for _ in range(count)]


@dataclass(frozen=True)
class Technique:
    """What a suite measures beside the techniques of `inference_pio.optimizations`: something that a loaded model can
    do without, and the work on which that should show.

    without      a context in which the loaded model does without it
    unavailable  why this machine cannot show it; empty where it can
    """

    name: str
    workload: Workload
    without: Callable[[nn.Module], AbstractContextManager[None]]
    unavailable: str = ""


@dataclass(frozen=True)
class Suite:
    """What one plugin's six benchmarks measure.

    context  tokens that the model takes at most, where somebody looked
    """

    plugin: str
    model: str
    batch: Workload
    prefill: Workload
    decode: Workload
    techniques: tuple[Technique, ...]
    context: int | None = None

    def showing(self, kind: Kind) -> Workload:
        """The work on which a technique that says so of itself should show."""
        half = max(2, self.prefill.prompt_len // 2)
        decode = Workload(64, max(4, self.decode.output_len // 4), min(8, self.batch.concurrency))
        known = max(_LONG, 2 * self.prefill.prompt_len)
        kinds: dict[Kind, Workload] = {
            "prefill": Workload(half, 1),
            "decode": decode,
            "long": Workload(known + _NEW, self.decode.output_len, known_len=known),
            "batch": replace(self.batch, output_len=max(4, self.batch.output_len // 4)),
            "shared": Workload(half, 4, concurrency=4, shared_len=half - half // 16),
            "memory": Workload(half, 4),
        }
        found = kinds[kind]
        return found if self.context is None else found.within(self.context)

    def within(self, positions: int) -> Suite:
        """The same for a model whose context has so many tokens."""
        return replace(
            self,
            context=positions,
            batch=self.batch.within(positions),
            prefill=self.prefill.within(positions),
            decode=self.decode.within(positions),
            techniques=tuple(
                replace(one, workload=one.workload.within(positions)) for one in self.techniques
            ),
        )
