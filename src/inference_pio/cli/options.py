"""Options that several verbs share: the model, what is shown, sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from inference_pio.config import BaseModelConfig
from inference_pio.sampling_params import SamplingParams

_SAMPLING = "Sampling"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A catalogue name (see `models list`), a GGUF file, a folder with config.json and safetensors, "
        "or a hub id (organisation/name).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AcceptLicence = Annotated[
    bool, typer.Option("--accept-licence", help="Accept the licence of a model that asks for it.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no figures: the answer and errors.")]

HideThinking = Annotated[
    bool,
    typer.Option(
        "--hide-thinking", help="Do not show what the model thinks before it answers (terminals only)."
    ),
]


def _sampling(text: str, *names: str, value: str = "X") -> Any:
    return typer.Option(*names, help=text, metavar=value, rich_help_panel=_SAMPLING, show_default=False)


def _usual(name: str) -> str:
    """What a model whose configuration says nothing else uses."""
    return f"(the model's, usually {getattr(BaseModelConfig, name)})"


@dataclass(frozen=True)
class SamplingOptions:
    """Fields named as in `SamplingParams`; None is "not given": the model's configuration decides."""

    temperature: Annotated[
        float | None,
        _sampling(
            f"0 is the most likely token always, at most 2. {_usual('temperature')}", "--temperature", "-t"
        ),
    ] = None
    top_p: Annotated[
        float | None, _sampling(f"Most likely tokens up to this probability. {_usual('top_p')}", "--top-p")
    ] = None
    top_k: Annotated[
        int | None,
        _sampling(f"This many most likely tokens; 0 is all. {_usual('top_k')}", "--top-k", value="N"),
    ] = None
    min_p: Annotated[
        float | None, _sampling("Tokens at least this share of the likeliest. (default 0)", "--min-p")
    ] = None
    typical_p: Annotated[
        float | None, _sampling("Typical tokens up to this probability. (default 1)", "--typical-p")
    ] = None
    repetition_penalty: Annotated[
        float | None,
        _sampling(
            f"Divides logits of tokens seen; 1 is off. {_usual('repetition_penalty')}", "--repetition-penalty"
        ),
    ] = None
    presence_penalty: Annotated[
        float | None, _sampling("Off tokens in the answer, -2 to 2. (default 0)", "--presence-penalty")
    ] = None
    frequency_penalty: Annotated[
        float | None,
        _sampling("Off tokens in the answer, per occurrence, -2 to 2. (default 0)", "--frequency-penalty"),
    ] = None
    max_tokens: Annotated[
        int | None,
        _sampling(f"Tokens to answer at most. {_usual('max_new_tokens')}", "--max-tokens", "-m", value="N"),
    ] = None
    min_tokens: Annotated[
        int | None, _sampling("No end before this many tokens. (default 0)", "--min-tokens", value="N")
    ] = None
    stop: Annotated[
        list[str] | None,
        _sampling("End the answer before this text; may be given again.", "--stop", value="TEXT"),
    ] = None
    seed: Annotated[
        int | None, _sampling("Same seed, same answer. (another each time)", "--seed", value="N")
    ] = None

    def overrides(self, **more: Any) -> dict[str, Any]:
        """What was given, and `more`, by name in `SamplingParams`; wrong values raise `SamplingError` here."""
        given = {name: value for name, value in {**vars(self), **more}.items() if value is not None}
        if given.get("temperature") == 0:
            # Who asks for the most likely token means just that, not the configuration's penalty on top.
            given.setdefault("repetition_penalty", 1.0)
        SamplingParams(**{"max_tokens": None, **given})
        return given
