"""`inference-pio chat`: a conversation at the terminal, or over a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from inference_pio.cli.answer import Answer, Shown, Timing, follow, guess_figures
from inference_pio.cli.conversation import Conversation
from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.entry import Entry, LineReader
from inference_pio.cli.options import HideThinking, Model, Quiet, SamplingOptions
from inference_pio.cli.session import Session, loaded
from inference_pio.errors import ContextLengthError, GenerationError, ImageError, UnavailableError, UsageError

HELP = '''/reset        forget the conversation
/image FILE   put an image before the next message, of a model that sees; may be typed again
/system TEXT  set the system message (nothing: remove it) and start again
/help         this list
/exit         leave; so does Ctrl-D, or Ctrl-C twice
"""           begin and end a text of several lines; or end a line with \\ to go on
Ctrl-C        stop the answer; what was said of it stays in the conversation'''


def chat(
    model: Model,
    sampling: SamplingOptions,
    engine: EngineOptions,
    system: Annotated[
        str | None, typer.Option("--system", "-s", metavar="TEXT", help="A system message to begin with.")
    ] = None,
    hide_thinking: HideThinking = False,
    quiet: Quiet = False,
) -> None:
    """Talk with a model. /help lists what can be typed beside messages."""
    overrides = sampling.overrides()
    with loaded(model, engine, max_num_seqs=1, quiet=quiet) as session:
        # A model without a chat template is refused now, not after the first message.
        session.llm.format_chat([{"role": "user", "content": "?"}])
        conversation = Conversation(session, system)
        reader = LineReader()
        if reader.interactive and not quiet:
            print(f"{model}: {session.llm.max_model_len} tokens of context. /help for help.", file=sys.stderr)
        while (entry := reader.read()) is not None:
            try:
                if entry.is_command:
                    if not _obey(entry, conversation):
                        return
                elif entry.text.strip():
                    shown = Shown(thoughts=not hide_thinking)
                    calm = quiet or not reader.interactive
                    _answer(session, conversation, entry.text, overrides, shown, calm)
            except KeyboardInterrupt:
                if not reader.interactive:
                    raise
                print(flush=True)


def _obey(entry: Entry, conversation: Conversation) -> bool:
    """Carry out a command; False for the one that leaves."""
    word, _, rest = entry.text.partition(" ")
    if word in ("/exit", "/quit", "/bye"):
        return False
    if word == "/reset":
        conversation.reset()
        _note("forgotten")
    elif word == "/image":
        _show_image(conversation, Path(rest.strip()).expanduser())
    elif word == "/system":
        conversation.reset(rest.strip())
        _note("system message set" if rest.strip() else "system message removed")
    elif word == "/help":
        print(HELP, file=sys.stderr)
    else:
        _note(f"no command {word}; /help lists them")
    return True


def _show_image(conversation: Conversation, path: Path) -> None:
    try:
        count = conversation.show(path)
    except (ImageError, UnavailableError) as error:
        _note(f"error: {error}")
    else:
        _note(f"{count} before the next message")


def _answer(
    session: Session,
    conversation: Conversation,
    text: str,
    overrides: dict[str, object],
    shown: Shown,
    quiet: bool,
) -> None:
    """Ask and show; what can go wrong with one message is told and the conversation goes on."""
    answer = Answer()
    try:
        prompt, dropped = conversation.ask(text)
    except (ContextLengthError, UsageError) as error:
        _note(f"error: {error}")
        return
    if dropped:
        _note(
            f"the context of {session.llm.max_model_len} tokens is full: the oldest {dropped} messages were dropped"
        )
    tokens = len(prompt.token_ids)
    timing = Timing(tokens)
    made, right = session.guesses()
    try:
        params = session.params(overrides, tokens)
        follow(session.llm.stream_chat(prompt, params), [answer], timing, shown)
    except KeyboardInterrupt:
        conversation.answered(f"{answer.text} …", answer.reasoning)
        raise
    except GenerationError as error:
        print()
        _note(f"error: {error}")
        conversation.take_back()
        return
    conversation.answered(answer.text, answer.reasoning)
    print(flush=True)
    if answer.cache is not None:
        _note(answer.cache.text)
    if answer.finish_reason == "length":
        _note(session.why_cut_off(timing.prompt_tokens, len(answer.token_ids)))
    if not quiet:
        made_since, right_since = session.guesses()
        guesses = guess_figures(made_since - made, right_since - right)
        _note(", ".join([f"{len(answer.token_ids)} tokens, {timing.decode_rate:.1f} tok/s", *guesses]))


def _note(text: str) -> None:
    print(f"({text})", file=sys.stderr, flush=True)
