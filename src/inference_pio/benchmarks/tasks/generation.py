"""GSM8K and HumanEval: answers that are generated, all greedily."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from inference_pio.benchmarks.harness import OnRound
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.tasks.testsets import Row
from inference_pio.errors import UsageError
from inference_pio.loader.progress import silent
from inference_pio.sampling_params import MAX_STOP_STRINGS, SamplingParams

EXAMPLES = 4
_FINAL = re.compile(r"#### *\$?(-?[0-9][0-9,]*(?:\.[0-9]+)?)")
_QUESTION = "Question:"
# Where a function ends: what begins at the margin belongs to something else (Chen et al., 2021, section 3.1).
_AFTER_A_FUNCTION = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def gsm8k(
    loaded: LoadedModel, rows: Sequence[Row], max_tokens: int, on_round: OnRound = silent
) -> tuple[list[bool], int]:
    """Word problems solved in steps that end in "#### number" (Cobbe et al., 2021); right where the number is.

    The first `EXAMPLES` rows stand solved in front of each question, and are not asked.

    Returns:
        Whether each question was answered rightly, and how many solved ones the context has room for.
    """
    asked = rows[EXAMPLES:]
    examples = list(rows[:EXAMPLES])
    prompts = [gsm8k_prompt(row, examples) for row in asked]
    room = loaded.plan.max_model_len - max_tokens
    while examples and max(map(len, loaded.plugin.tokenize(prompts))) > room:
        examples.pop()
        prompts = [gsm8k_prompt(row, examples) for row in asked]
    answers = generated(loaded, prompts, max_tokens, [_QUESTION], on_round, "accuracy, gsm8k")
    right = [
        (said := final_number(answer)) is not None and said == final_number(str(row["answer"]))
        for answer, row in zip(answers, asked, strict=True)
    ]
    return right, len(examples)


def gsm8k_prompt(row: Row, examples: Sequence[Row]) -> str:
    """Solved problems, then one that is not."""
    shots = "".join(f"{_QUESTION} {one['question']}\nAnswer: {one['answer']}\n\n" for one in examples)
    return f"{shots}{_QUESTION} {row['question']}\nAnswer:"


def humaneval(
    loaded: LoadedModel, rows: Sequence[Row], max_tokens: int, file: Path, on_round: OnRound = silent
) -> int:
    """Complete each function, and write `{"task_id", "completion"}` lines as the authors' checker reads them.

    Nothing is run here: completions are code of a model's, and want a sandbox.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with file.open("w", encoding="utf-8") as out:  # before minutes of work
            prompts = [str(row["prompt"]) for row in rows]
            answers = generated(
                loaded, prompts, max_tokens, _AFTER_A_FUNCTION, on_round, "accuracy, humaneval"
            )
            for row, answer in zip(rows, answers, strict=True):
                out.write(json.dumps({"task_id": row["task_id"], "completion": answer}) + "\n")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    return len(rows)


def final_number(answer: str) -> float | None:
    """What stands behind the first "####"; None where nothing does."""
    match = _FINAL.search(answer)
    return float(match[1].replace(",", "")) if match else None


def generated(
    loaded: LoadedModel,
    prompts: Sequence[str],
    max_tokens: int,
    stop: Sequence[str],
    on_round: OnRound,
    what: str,
) -> list[str]:
    """Greedy answers up to a stop string; an answer that failed raises.

    Raises:
        GenerationError: the engine could not answer.
        ContextLengthError: a prompt and its answer do not fit.
    """
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, stop=stop[:MAX_STOP_STRINGS])
    done = iter(range(1, len(prompts) + 1))
    on_round(0, len(prompts), what)
    answers = loaded.answers(
        prompts, [params] * len(prompts), lambda: on_round(next(done), len(prompts), what)
    )
    return [cut(answer, stop) for answer in answers]


def cut(answer: str, stop: Sequence[str]) -> str:
    """What stands before the first of the stop strings: the engine ends an answer at a few of them alone."""
    return answer[: min((at for text in stop if (at := answer.find(text)) >= 0), default=len(answer))]
