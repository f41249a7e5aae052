"""Text for a model in a worker: what is wrong with it is told here; tokenizer and template are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inference_pio.errors import UsageError
from inference_pio.helper.process import HELPER
from inference_pio.plugin.media import ImageSource
from inference_pio.plugin.runtime import EncodedPrompt, FormattedPrompt, ImagePrompt, RuntimePrompt
from inference_pio.text.limits import check_text
from inference_pio.text.messages import check_conversation
from inference_pio.worker.answers import Encoded, Written
from inference_pio.worker.as_data import exact
from inference_pio.worker.pictures import PicturedPrompt, decoded, without_images

Ask = Callable[..., Any]


def rendered(
    ask: Ask,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any] | None,
) -> FormattedPrompt:
    """A conversation by the model's chat template, which the helper runs.

    Raises:
        UsageError: something in it is wrong, or not for this model.
        ChatTemplateError: the template fails.
    """
    check_conversation(messages, add_generation_prompt, tools, options)
    bare, images = without_images(messages)
    told: Written = ask(
        "write",
        messages=exact(bare),
        add_generation_prompt=add_generation_prompt,
        tools=exact(tools),
        options=exact(options),
    )
    text = HELPER.render(told.source, told.values, told.path)
    return FormattedPrompt(text, [ImageSource(where, images[where]) for where in told.images])


def encoded(ask: Ask, prompt: RuntimePrompt, name: str, sees: bool) -> EncodedPrompt:
    """
    Raises:
        UsageError: it is too long, or has images that the model does not see.
        ImageError: an image cannot be read.
    """
    if isinstance(prompt, EncodedPrompt):
        if prompt.media is not None:
            raise UsageError("the prompt's images were made ready in this process, and not for a worker")
        return prompt
    images = prompt.images if isinstance(prompt, (FormattedPrompt, ImagePrompt)) else ()
    written = prompt.prompt if isinstance(prompt, ImagePrompt) else prompt
    if isinstance(written, str):
        check_text(written)
    elif not images:
        return EncodedPrompt(None, list(written))
    if images and not sees:
        raise UsageError(f"{images[0].where}: {name} takes text only, not images")
    given, pictures = exact(written), decoded(images)
    formatted = isinstance(written, FormattedPrompt)
    told: Encoded = ask("encode", images=pictures, written=given, formatted=formatted)
    if not pictures:
        return EncodedPrompt(told.text, told.token_ids)
    return PicturedPrompt(told.text, told.token_ids, None, given, formatted, pictures)
