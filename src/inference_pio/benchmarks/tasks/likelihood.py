"""LAMBADA and MMLU: answers that need not be generated, since their likelihood says what the model would say."""

from __future__ import annotations

from collections.abc import Sequence

from inference_pio.benchmarks.harness import OnRound
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.scoring import Continuation, Scorer, split
from inference_pio.benchmarks.tasks.testsets import Row
from inference_pio.loader.progress import silent

LETTERS = "ABCD"
SHOTS = 5


def lambada(
    loaded: LoadedModel, scorer: Scorer, rows: Sequence[Row], on_round: OnRound = silent
) -> list[Continuation]:
    """The last word of each passage after all the others (Paperno et al., 2016): right where the model's best token is
    the word's at each of its tokens."""
    found = []
    for index, row in enumerate(rows):
        on_round(index, len(rows), "accuracy, lambada")
        before, _, word = str(row["text"]).rpartition(" ")
        context, last = split(loaded, before, f" {word}")
        found += scorer.continuations(context, [last])
    return found


def mmlu(
    loaded: LoadedModel,
    scorer: Scorer,
    rows: Sequence[Row],
    examples: Sequence[Row],
    longest: int,
    on_round: OnRound = silent,
) -> tuple[list[bool], int]:
    """Which of the letters is the likeliest after "Answer:" (Hendrycks et al., 2021), with five examples of the subject
    in front, or as many as `longest` tokens leave room for.

    Returns:
        Whether each question was answered rightly, and how many had fewer than five examples.
    """
    right, shortened = [], 0
    for index, row in enumerate(rows):
        on_round(index, len(rows), "accuracy, mmlu")
        of_subject = [one for one in examples if one["subject"] == row["subject"]][:SHOTS]
        prompt = mmlu_prompt(row, of_subject)
        while of_subject and len(loaded.plugin.tokenize(prompt)) >= longest:
            of_subject.pop()
            prompt = mmlu_prompt(row, of_subject)
        shortened += len(of_subject) < SHOTS
        pairs = [split(loaded, prompt, f" {letter}") for letter in LETTERS]
        contexts = [context for context, _ in pairs]
        if all(context == contexts[0] for context in contexts):
            scores = scorer.continuations(contexts[0], [letter for _, letter in pairs])
        else:
            scores = [scorer.continuations(context, [letter])[0] for context, letter in pairs]
        logprobs = [one.logprob for one in scores]
        right.append(logprobs.index(max(logprobs)) == row["answer"])
    return right, shortened


def mmlu_prompt(row: Row, examples: Sequence[Row]) -> str:
    """As the authors wrote it."""
    subject = str(row["subject"]).replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    shots = "".join(f"{_question(one)} {LETTERS[one['answer']]}\n\n" for one in examples)
    return f"{head}{shots}{_question(row)}"


def _question(row: Row) -> str:
    choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question']}{choices}\nAnswer:"
