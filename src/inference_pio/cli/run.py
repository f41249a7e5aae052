"""`inference-pio run`: one prompt, one answer."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from inference_pio.cli.answer import Answer, Shown, Timing, follow, guess_figures
from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.options import AsJson, HideThinking, Model, Quiet, SamplingOptions
from inference_pio.cli.prompt import read_prompt, with_images
from inference_pio.cli.session import Session, loaded
from inference_pio.cli.text import visible
from inference_pio.errors import UsageError
from inference_pio.outputs import CacheExplanation, TokenLogprobs


def run(
    model: Model,
    sampling: SamplingOptions,
    engine: EngineOptions,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="The prompt; `-` or nothing reads standard input."),
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", "-f", metavar="FILE", help="Read the prompt from a file.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", metavar="TEXT", help="A system message before the prompt.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="An image before the prompt; may be given again."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text as it is, without the model's chat template.")
    ] = False,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Answers to the one prompt, 1 to 16.")] = 1,
    logprobs: Annotated[
        int | None,
        typer.Option(
            "--logprobs", metavar="N", help="With --json: the N best tokens at each place, 0 to 20."
        ),
    ] = None,
    hide_thinking: HideThinking = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Answer one prompt and leave.

    The prompt is sent as a user's message through the model's chat template; a model without one continues the text.
    The answer goes to stdout as it is generated, figures go to stderr. What the model thinks first is shown on a
    terminal, dimmed, and is a field of its own in JSON.
    """
    if raw and system is not None:
        raise UsageError("--system is a message of the chat template, which --raw leaves out")
    if raw and image:
        raise UsageError("--image is a part of the chat template's message, which --raw leaves out")
    if logprobs is not None and not as_json:
        raise UsageError("--logprobs is printed with --json only")
    overrides = sampling.overrides(n=n, logprobs=logprobs)
    engine.limits(), engine.runtime_options(n)  # wrong values are told before a prompt is waited for
    text = read_prompt(prompt, prompt_file)
    with loaded(model, engine, max_num_seqs=n, quiet=quiet) as session:
        written, is_chat = _formatted(session, text, image or [], system, raw)
        encoded = session.llm.encode_prompt(written)
        tokens = len(encoded.token_ids)
        params = session.params(overrides, tokens)
        answers, timing = [Answer() for _ in range(n)], Timing(tokens)
        streamed = n == 1 and not as_json
        chunks = (session.llm.stream_chat if is_chat else session.llm.stream)(encoded, params)
        follow(chunks, answers, timing, Shown(thoughts=not hide_thinking) if streamed else None)
        _show(session, answers, timing, as_json, quiet)


def _formatted(
    session: Session, text: str, images: list[Path], system: str | None, raw: bool
) -> tuple[str, bool]:
    """(the text the model gets, whether its chat template made it): where it has one and that is wanted."""
    has_template = session.llm.has_chat_template
    if system is not None and not has_template:
        raise UsageError("--system needs a chat template, and this model has none")
    if images and not has_template:
        raise UsageError("--image needs a chat template, and this model has none")
    if raw or not has_template:
        return text, False
    messages: list[dict[str, Any]] = [{"role": "user", "content": with_images(text, images)}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return session.llm.format_chat(messages), True


def _show(session: Session, answers: list[Answer], timing: Timing, as_json: bool, quiet: bool) -> None:
    if as_json:
        print(json.dumps(_document(session, answers, timing), ensure_ascii=False, indent=2))
        return
    if len(answers) == 1:
        print(flush=True)  # the text itself was streamed
    else:
        for index, answer in enumerate(answers):
            text = visible(answer.text) if sys.stdout.isatty() else answer.text
            print(f"[{index + 1}] {text}", flush=True)
    if not quiet:
        print(_figures(session, answers, timing), file=sys.stderr)
    for told in _cache(answers):
        print(told.text, file=sys.stderr)


def _cache(answers: list[Answer]) -> list[CacheExplanation]:
    """What the prefix cache gave of the one prompt, where that was asked for."""
    return [answer.cache for answer in answers if answer.cache is not None]


def _figures(session: Session, answers: list[Answer], timing: Timing) -> str:
    tokens = sum(len(answer.token_ids) for answer in answers)
    parts = [
        f"prompt {timing.prompt_tokens} tokens, {timing.prompt_rate:.1f} tok/s",
        f"answer {tokens} tokens, {timing.decode_rate:.1f} tok/s",
        f"first token {timing.first_token_seconds:.2f} s",
        f"load {session.load_seconds:.2f} s",
        *guess_figures(*session.guesses()),
    ]
    cut_off = [len(answer.token_ids) for answer in answers if answer.finish_reason == "length"]
    if cut_off:
        parts.append(session.why_cut_off(timing.prompt_tokens, max(cut_off)))
    return " · ".join(parts)


def _document(session: Session, answers: list[Answer], timing: Timing) -> dict[str, Any]:
    tokens = sum(len(answer.token_ids) for answer in answers)
    document = _answer(answers[0])
    for told in _cache(answers):
        document["cache"] = asdict(told)
    if len(answers) > 1:
        document["alternatives"] = [_answer(answer) for answer in answers[1:]]
    document["usage"] = {
        "prompt_tokens": timing.prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": timing.prompt_tokens + tokens,
    }
    document["timings"] = {
        "load_seconds": round(session.load_seconds, 4),
        "time_to_first_token_seconds": round(timing.first_token_seconds, 4),
        "total_seconds": round(timing.total_seconds, 4),
        "prompt_tokens_per_second": round(timing.prompt_rate, 2),
        "decode_tokens_per_second": round(timing.decode_rate, 2),
    }
    if timing.metrics is not None:
        document["performance"] = timing.metrics.performance.as_dict()
    return document


def _answer(answer: Answer) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "text": answer.text,
        "token_ids": answer.token_ids,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
    }
    if answer.reasoning:
        shown["reasoning"] = answer.reasoning
    if answer.logprobs is not None:
        shown["logprobs"] = [_scores(scores) for scores in answer.logprobs]
    return shown


def _scores(scores: TokenLogprobs) -> list[dict[str, Any]]:
    """Best first; the chosen token is among them even where it is not one of the N best."""
    return [
        {"token_id": token_id, "token": entry.decoded_token, "logprob": entry.logprob, "rank": entry.rank}
        for token_id, entry in sorted(scores.items(), key=lambda item: item[1].rank)
    ]
