"""What giving up cached tokens costs: the same long prompts with all of their tokens in the cache, and with some.

    python benchmarks/eviction.py [--model NAME] [--context 8000] [--budget N] [--lambada FILE] [--text FILE]
        [--depths 0.1,0.5,0.9] [--passages 24] [--kv-cache-dtype NAME] [--json]

The engine decides at the end of a prompt what stays, so everything is measured behind that:

* text: KL divergence and equal best tokens over the 128 tokens that follow `--context` tokens of a text, and over the
  answer to a question about it.
* needle: a number that is hidden at several depths of the text and asked for at its end: whether a greedy answer has
  it. "asked later" is the harder case: the question comes after the decision, as in a conversation's next turn, so that
  nothing could tell the engine what it would be about; given the words before it, is each digit the best token?
* LAMBADA (Paperno et al. 2016), where `--lambada` names a file of objects with a `text`, one a line, packed or not:
  behind a context of other passages, whether the last word of a passage is what the model says, token by token.

Exit code 1 where divergence or agreement are outside quality level "fast".
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from inference_pio import LLM, SamplingParams
from inference_pio.benchmarks.divergence import Divergence, Probe, divergence
from inference_pio.benchmarks.environment import environment
from inference_pio.optimizations.quality import LEVELS

TEXT = Path(__file__).parents[1] / "tests/data/text/coriolanus.txt"
NEEDLE, DIGITS = "The magic number of Helsinki is 7421.", "7421"
QUESTION = "What is the magic number of Helsinki?"
FOLLOWING, ANSWER = 128, 24
AT_ONCE = 8


@dataclass(frozen=True)
class Work:
    """What both sides compute. Needles are whole prompts; `later` are the tokens up to the question, and from it on.

    passages  of LAMBADA, behind one context: the tokens before the last word, and those of the word
    """

    text: Probe
    needles: list[str]
    answers: list[Probe]
    later: list[Probe]
    context: list[int]
    passages: list[tuple[list[int], list[int]]]


@dataclass(frozen=True)
class Side:
    """What a side said. `lambada` is a share, None where there are no passages."""

    found: int
    found_later: int
    lambada: float | None
    evicted_tokens: int
    seconds: float


@dataclass(frozen=True)
class Options:
    context: int
    depths: list[float]
    passages: int
    text: Path
    lambada: Path | None


def prepare(llm: LLM, options: Options) -> Work:
    """Prompts of about `context` tokens."""
    text = options.text.read_text(encoding="utf-8")
    tokens = ids(llm, text)
    if len(tokens) < options.context + FOLLOWING:
        raise SystemExit(f"{options.text} has {len(tokens)} tokens, {options.context + FOLLOWING} are needed")
    characters = len(text) * options.context // len(tokens) - 1000
    needles, later = [], []
    for depth in options.depths:
        place = text.index("\n", int(characters * depth))
        hidden = f"{text[:place]}\n\n{NEEDLE}\n{text[place:characters]}"
        needles.append(str(llm.format_chat([{"role": "user", "content": f"{hidden}\n\n{QUESTION}"}])))
        before, _, after = needles[-1].partition(QUESTION)
        later.append(Probe(ids(llm, before), ids(llm, QUESTION + after + NEEDLE[:-1])))
    answers = [Probe(ids(llm, needle), ids(llm, NEEDLE)) for needle in needles]
    cut = options.context
    probe = Probe(tokens[:cut], tokens[cut : cut + FOLLOWING])
    return Work(probe, needles, answers, later, *passages_of(llm, options))


def passages_of(llm: LLM, options: Options) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
    """A context of the file's last passages, and its first ones."""
    if options.lambada is None:
        return [], []
    raw = options.lambada.read_bytes()
    lines = (gzip.decompress(raw) if options.lambada.suffix == ".gz" else raw).decode().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    passages = []
    for text in texts[: options.passages]:
        before, _, word = text.rpartition(" ")
        passages.append((ids(llm, "\n\n" + before), ids(llm, " " + word)))
    room = options.context - max(len(before) + len(word) for before, word in passages)
    context: list[int] = []
    for text in reversed(texts):
        more = ids(llm, "\n\n" + text)
        if len(context) + len(more) > room:
            break
        context += more
    return context, passages


def ids(llm: LLM, text: str) -> list[int]:
    return list(llm.plugin.tokenize(text, add_special_tokens=False))


def run(llm: LLM, work: Work) -> tuple[Side, list[Tensor]]:
    """Everything on one side; the logits of the text and of the answers."""
    started = perf_counter()
    logits = follow(llm, [work.text])
    said = []
    for needle in work.needles:  # one by one: each finds what the one before has computed
        params = SamplingParams(temperature=0.0, max_tokens=ANSWER)
        said.append(llm.generate([{"prompt_token_ids": ids(llm, needle)}], params)[0].outputs[0].text)
    logits += follow(llm, work.answers)
    later = [
        digits_right(llm, probe, rows)
        for probe, rows in zip(work.later, follow(llm, work.later), strict=True)
    ]
    probes = [Probe(work.context, before + word) for before, word in work.passages]
    right = [
        equal(rows[-len(word) :], word)
        for (_, word), rows in zip(work.passages, follow(llm, probes), strict=True)
    ]
    lambada = sum(right) / len(right) if right else None
    evicted = int(llm.plugin.get_compute_stats()["evicted_tokens"])
    found = sum(DIGITS in answer for answer in said)
    return Side(found, sum(later), lambada, evicted, perf_counter() - started), logits


def follow(llm: LLM, probes: Sequence[Probe]) -> list[Tensor]:
    """The first one computes what the others then find."""
    found: list[Tensor] = []
    for start, end in ((0, 1), *((at, at + AT_ONCE) for at in range(1, len(probes), AT_ONCE))):
        part = probes[start:end]
        found += llm._runtime.follow([probe.prompt for probe in part], [probe.answer for probe in part])
    return found


def digits_right(llm: LLM, probe: Probe, logits: Tensor) -> bool:
    """Whether each token from the first digit on is the best one."""
    first = next(at for at in range(len(probe.answer)) if "7" in llm.plugin.detokenize([probe.answer[at]]))
    return equal(logits[first:], probe.answer[first:])


def equal(logits: Tensor, tokens: list[int]) -> bool:
    return bool((logits.argmax(dim=-1) == torch.tensor(tokens)).all())


def measure(
    model: str, options: Options, budget: int, kv_dtype: str
) -> tuple[dict[str, Side], dict[str, Divergence]]:
    """Both sides, one after the other, and how far the second is from the first."""
    sides, logits, work = {}, {}, None
    for name, kept in (("all", None), ("evicted", budget)):
        longest = options.context + 2 * FOLLOWING
        sizes: dict[str, Any] = {"max_model_len": longest, "max_num_seqs": AT_ONCE, "speculation": 0}
        with LLM(model, kv_cache_budget=kept, kv_cache_dtype=kv_dtype, **sizes) as llm:
            work = work or prepare(llm, options)
            sides[name], logits[name] = run(llm, work)
    assert work is not None
    probes = [work.text, *work.answers]
    parts = {"text": slice(0, 1), "answers": slice(1, None)}
    found = {
        what: divergence(logits["all"][part], logits["evicted"][part], probes[part])
        for what, part in parts.items()
    }
    return sides, found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--context", type=int, default=7800, help="tokens of a prompt, about")
    parser.add_argument("--budget", type=int, help="tokens that stay (half the context)")
    parser.add_argument("--depths", default="0.1,0.3,0.5,0.7,0.9")
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--lambada", type=Path)
    parser.add_argument("--passages", type=int, default=24)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    depths = [float(depth) for depth in chosen.depths.split(",")]
    options = Options(chosen.context, depths, chosen.passages, chosen.text, chosen.lambada)
    budget = chosen.budget or chosen.context // 2
    sides, found = measure(chosen.model, options, budget, chosen.kv_cache_dtype)
    level = LEVELS["fast"]
    violations = {what: level.violation(each.kl, each.top1) for what, each in found.items()}
    if chosen.json:
        said = {name: asdict(side) for name, side in sides.items()}
        moved = {what: asdict(each) for what, each in found.items()}
        report = {"model": chosen.model, "context": chosen.context, "budget": budget, "sides": said}
        print(
            json.dumps(
                {**report, "divergence": moved, "violations": violations, "environment": environment()}
            )
        )
    else:
        for name, side in sides.items():
            words = "" if side.lambada is None else f", LAMBADA {side.lambada:.1%} of {chosen.passages}"
            print(
                f"{name}: needle {side.found} of {len(depths)}, asked later {side.found_later}{words}; "
                f"{side.evicted_tokens:,} tokens evicted, {side.seconds:.0f} s"
            )
        for what, each in found.items():
            print(
                f"{what}: KL {each.kl:.4f} ± {each.kl_error:.4f}, top-1 {each.top1:.3f} on {each.tokens} tokens  "
                f"{violations[what] or 'within fast'}"
            )
    return 1 if any(violations.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
